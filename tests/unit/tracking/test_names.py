from egra_dist.tracking.names import numbers_and_words


def test_facts_become_metrics_and_tags_by_path():
    facts = {"recall": 0.5, "method": "routed", "in_degree": {"p99": 3, "max": {"value": 7}}}
    numbers, words = numbers_and_words(facts)
    assert numbers == {"recall": 0.5, "in_degree/p99": 3.0, "in_degree/max/value": 7.0}
    assert words == {"method": "routed"}
