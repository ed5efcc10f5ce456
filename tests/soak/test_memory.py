from soak.memory import bounded
from soak.tally import Tally


def test_memory_stays_within_its_bounds_under_a_mixed_attack(tmp_path):
    tally = Tally(14, 60)
    bounded.run(tally, tmp_path)
    tally.close()
    assert (tally.done, tally.failures) == (14, [])
    assert tally.facts["others answered"] > 0
