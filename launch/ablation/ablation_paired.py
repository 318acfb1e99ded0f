"""Paired comparison of two heads over seeds: intervals and p-values by SciPy."""

import math

try:
    from scipy import stats
except ImportError:
    stats = None

WITHOUT_SCIPY = "Intervals and p-values need SciPy (Debian's python3-scipy, or pip install scipy): not there.\n"


class Paired:
    """Differences of losses (nats a token) over the seeds that both have, {seed: nll} each. `ratio`, `low` and `high` are of
    perplexities, less one: the mean's and the ends of its 95 % interval by Student's t, as is the two-sided `p`; these three
    are None with fewer than two pairs, with pairs that do not differ, or without SciPy."""

    def __init__(self, ours, theirs):
        differences = [ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())]
        self.pairs = len(differences)
        self.ratio = math.expm1(math.fsum(differences) / self.pairs) if differences else None
        self.low = self.high = self.p = None
        if stats is None or self.pairs < 2 or len(set(differences)) == 1:
            return
        test = stats.ttest_1samp(differences, 0)
        low, high = test.confidence_interval(0.95)
        self.low, self.high, self.p = math.expm1(low), math.expm1(high), float(test.pvalue)

    def interval(self):
        """"-19.8 to -19.5 %"."""
        return "-" if self.low is None else f"{100 * self.low:+.1f} to {100 * self.high:+.1f} %"

    def chance(self):
        """p, or that it is below 1e-5."""
        if self.p is None:
            return "-"
        return "< 0.00001" if self.p < 1e-5 else f"{self.p:.2g}"
