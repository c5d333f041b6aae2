//! What a sample says about the whole.
//!
//! A sample of n with k bad ones is binomial where the whole is much larger, and narrower than that
//! where it is not: what is said here is then said with some to spare. The bounds are those of
//! C. J. Clopper and E. S. Pearson, "The use of confidence or fiducial limits illustrated in the case
//! of the binomial", Biometrika 26 (1934). With no bad one at 95 % they are the rule of three: at most
//! 3 / n are bad.

/// How sure a sample is to notice a rate below its limit.
const NOTICED: f64 = 0.99;

/// The chance of at most `k` bad ones among `n`, if the share `p` of the whole is bad.
pub(crate) fn at_most(k: u64, n: u64, p: f64) -> f64 {
    if k >= n || p <= 0.0 {
        return 1.0;
    }
    if p >= 1.0 {
        return 0.0;
    }
    let (log_p, log_q) = (p.ln(), (-p).ln_1p());
    let (n, mut choose, mut sum) = (float(n), 0.0_f64, 0.0);
    for i in 0..=k {
        let i = float(i);
        sum += (choose + i * log_p + (n - i) * log_q).exp();
        // From n over i to n over i + 1.
        choose += ((n - i) / (i + 1.0)).ln();
    }
    sum.min(1.0)
}

/// The largest share that can be bad, with a confidence, if `k` of `n` are: were it larger, so few
/// would be found less often than the rest of the confidence.
pub(crate) fn upper_bound(k: u64, n: u64, confidence: f64) -> f64 {
    if k >= n {
        return 1.0;
    }
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..50 {
        let middle = f64::midpoint(low, high);
        if at_most(k, n, middle) > 1.0 - confidence {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

/// The sync rate, and whether it may be below the limit: `bad` of `sampled` were. Where all files were
/// asked for there is no doubt; and where so few could be drawn that they prove nothing either way, the
/// rate is taken for what it is.
pub(crate) fn judge(bad: u64, sampled: u64, complete: bool, limit: f64) -> (f64, bool) {
    if sampled == 0 {
        return (1.0, false);
    }
    let rate = 1.0 - float(bad) / float(sampled);
    // Were the rate below the limit, so few bad ones would be rare.
    let is_rare = |bad| at_most(bad, sampled, 1.0 - limit) <= 1.0 - NOTICED;
    let proves = !complete && is_rare(0);
    (rate, if proves { !is_rare(bad) } else { rate < limit })
}

#[expect(clippy::cast_precision_loss, reason = "fewer than 2^52")]
fn float(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(found: f64, expected: f64) {
        assert!((found - expected).abs() < 5e-5, "{found} for {expected}");
    }

    /// Of the tables of Clopper and Pearson, one-sided.
    #[test]
    fn bounds_are_those_of_the_tables() {
        near(upper_bound(0, 300, 0.95), 1.0 - 0.05_f64.powf(1.0 / 300.0));
        near(upper_bound(0, 20_000, 0.95), 3.0 / 20_000.0);
        near(upper_bound(1, 10, 0.95), 0.3942);
        near(upper_bound(10, 100, 0.95), 0.1637);
        near(upper_bound(5, 5, 0.95), 1.0);
    }

    #[test]
    fn chances_add_up() {
        near(at_most(0, 10, 0.5), 0.5_f64.powi(10));
        near(at_most(4, 9, 0.5), 0.5);
        near(at_most(6, 300, 0.05), 0.006_58);
        near(at_most(3, 3, 0.9), 1.0);
        near(at_most(0, 0, 0.5), 1.0);
        assert!(at_most(100_000, 200_000, 0.6) < 1e-9);
    }

    #[test]
    fn a_sample_must_show_that_the_rate_is_not_below_the_limit() {
        let alert = |bad, sampled, complete| judge(bad, sampled, complete, 0.95).1;
        assert!(!alert(0, 300, false) && !alert(6, 300, false));
        assert!(alert(7, 300, false) && alert(300, 300, false));
        // All that there are.
        assert!(!alert(7, 200, true) && alert(11, 200, true));
        // Too few to prove anything.
        assert!(!alert(0, 0, false) && !alert(0, 3, false) && !alert(1, 80, false));
        assert!(alert(1, 3, false));
    }
}
