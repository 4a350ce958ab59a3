"""Requests as they come over the wire: a table of rows and parameters, made into queries."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from .errors import RequestError
from .ids import Ids, RawId
from .recommender import Query

USER, ITEMS, NEW_ITEMS = "user_id", "items", "new_items"
COLUMNS = (USER, ITEMS, NEW_ITEMS)
DEFAULT_K = 20
MAX_K = 1000
MAX_ROWS = 1000
MAX_ITEMS = 10_000
MAX_NEW_ITEMS = 100


def parse_k(params: Mapping[str, Any] | None) -> int:
    """How many items are wanted.

    Raises:
        RequestError: If that is no number from 1 to :data:`MAX_K`.
    """
    k = (params or {}).get("k", DEFAULT_K)
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or not 1 <= k <= MAX_K:
        raise RequestError(f"params: k is {_shown(k)}, must be an integer from 1 to {MAX_K}")
    return int(k)


def parse_rows(table: Any, users: Ids, items: Ids) -> list[Query]:
    """The query of each row.

    Raises:
        RequestError: If the table or a row of it cannot be understood.
    """
    if not isinstance(table, pd.DataFrame):
        raise RequestError(
            f"input is {type(table).__name__}, must be a table: dataframe_records, dataframe_split"
        )
    columns = [name for name in COLUMNS if name in table.columns]
    if not columns:
        raise RequestError(f"input has none of the columns {', '.join(COLUMNS)}")
    if not 1 <= len(table) <= MAX_ROWS:
        raise RequestError(f"input has {len(table)} rows, must have 1 to {MAX_ROWS}")
    rows = zip(*(table[name].tolist() for name in columns), strict=True)
    queries = []
    for number, row in enumerate(rows):
        try:
            queries.append(_query(dict(zip(columns, row, strict=True)), users, items))
        except RequestError as error:
            raise RequestError(f"row {number}: {error}") from None
    return queries


def _query(row: Mapping[str, Any], users: Ids, items: Ids) -> Query:
    given = {name: value for name, value in row.items() if not _is_missing(value)}
    user = _parse_id(given[USER], USER, users) if USER in given else None
    history = _parse_list(given.get(ITEMS, []), ITEMS, MAX_ITEMS)
    new = _parse_list(given.get(NEW_ITEMS, []), NEW_ITEMS, MAX_NEW_ITEMS)
    return Query(
        user,
        tuple(dict.fromkeys(_parse_id(value, ITEMS, items) for value in history)),
        dict(_parse_new(value, items) for value in new),
    )


def _parse_new(value: Any, items: Ids) -> tuple[RawId, Mapping[str, Any]]:
    if not isinstance(value, dict) or set(value) != {"id", "features"}:
        raise RequestError(
            f"{NEW_ITEMS}: {_shown(value)}, must be an object with 'id' and 'features'"
        )
    name, features = _parse_id(value["id"], f"{NEW_ITEMS}: id", items), value["features"]
    if items.find([name])[0] >= 0:
        raise RequestError(f"{NEW_ITEMS}: item {_shown(name)} is known to the model")
    if not isinstance(features, dict):
        raise RequestError(f"{NEW_ITEMS}: features must be an object of lists by modality")
    return name, features


def _parse_id(value: Any, name: str, ids: Ids) -> RawId:
    try:
        return ids.parse(value)
    except ValueError as error:
        raise RequestError(f"{name} is {_shown(value)}, {error}") from None


def _parse_list(value: Any, name: str, most: int) -> list[Any]:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if not isinstance(value, (list, tuple)):
        raise RequestError(f"{name} is {_shown(value)}, must be a list")
    if len(value) > most:
        raise RequestError(f"{name} has {len(value)} entries, must have at most {most}")
    return list(value)


def _is_missing(value: Any) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value))


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
