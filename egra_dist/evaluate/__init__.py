"""How good it is: full ranking, metrics, slices, shallow yardsticks.

Read ``protocol`` first, then ``ranks`` (how ranks are found without sorting), ``counting``,
``metrics``.
"""
