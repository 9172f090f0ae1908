//! Which key comes next: uniform, Zipf, or a hot set; and how a key is spelt.

use std::str::FromStr;

use rand::Rng;
use rand::rngs::SmallRng;

/// Digits of a key's number: with `key:` before it a key is 16 bytes, as memtier's and redis-benchmark's are.
pub const DIGITS: usize = 12;

/// How keys are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Distribution {
    /// All alike.
    #[default]
    Uniform,
    /// The key of rank r with a weight of r^-θ.
    Zipf(f64),
    /// A share of the keys gets a share of the operations; within each part all alike.
    Hot {
        /// Share of the keys, 0–1.
        keys: f64,
        /// Share of the operations, 0–1.
        ops: f64,
    },
}

impl FromStr for Distribution {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const HELP: &str = "a distribution is uniform, zipf:0.99 or hot:10%:90% (share of keys : share of operations)";
        let share = |text: &str| {
            let n: f64 = text.strip_suffix('%').unwrap_or(text).parse().ok()?;
            let n = if text.ends_with('%') { n / 100.0 } else { n };
            (n > 0.0 && n < 1.0).then_some(n)
        };
        match text.split(':').collect::<Vec<_>>()[..] {
            ["uniform"] => Ok(Self::Uniform),
            ["zipf", theta] => match theta.parse::<f64>() {
                Ok(t) if t > 0.0 && t <= 10.0 => Ok(Self::Zipf(t)),
                _ => Err(HELP.into()),
            },
            ["hot", keys, ops] => {
                let (keys, ops) = share(keys).zip(share(ops)).ok_or(HELP)?;
                Ok(Self::Hot { keys, ops })
            }
            _ => Err(HELP.into()),
        }
    }
}

impl std::fmt::Display for Distribution {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Uniform => f.write_str("uniform"),
            Self::Zipf(theta) => write!(f, "zipf:{theta}"),
            Self::Hot { keys, ops } => write!(f, "hot:{}%:{}%", keys * 100.0, ops * 100.0),
        }
    }
}

/// Draws numbers below `n`.
#[derive(Debug, Clone)]
pub enum Draw {
    /// All alike.
    Uniform(u64),
    /// By rank.
    Zipf(Zipf),
    /// A hot part first.
    Hot {
        /// How many keys are hot.
        hot: u64,
        /// All.
        n: u64,
        /// Share of operations on them.
        ops: f64,
    },
}

impl Draw {
    /// Over `n` keys, at least one.
    pub fn new(distribution: Distribution, n: u64) -> Self {
        let n = n.max(1);
        match distribution {
            Distribution::Zipf(theta) => Draw::Zipf(Zipf::new(n, theta)),
            Distribution::Hot { keys, ops } if n > 1 => {
                Draw::Hot { hot: ((n as f64 * keys) as u64).clamp(1, n - 1), n, ops }
            }
            _ => Draw::Uniform(n),
        }
    }

    /// The next.
    pub fn next(&self, random: &mut SmallRng) -> u64 {
        match self {
            Draw::Uniform(n) => random.random_range(0..*n),
            Draw::Zipf(z) => z.next(random) - 1,
            Draw::Hot { hot, n, ops } => {
                if random.random::<f64>() < *ops {
                    random.random_range(0..*hot)
                } else {
                    random.random_range(*hot..*n)
                }
            }
        }
    }
}

/// Zipf's law over ranks 1 to n by rejection-inversion (Hörmann and Derflinger, "Rejection-inversion to generate variates from
/// monotone discrete distributions", 1996): constant time and no table, for every exponent above 0.
#[derive(Debug, Clone)]
pub struct Zipf {
    n: f64,
    theta: f64,
    /// The integral's value where rank 1 begins and where rank n ends.
    from: f64,
    to: f64,
    /// Ranks closer than this to the drawn point need no second look.
    sure: f64,
}

impl Zipf {
    /// Ranks 1 to n, weights r^-θ.
    pub fn new(n: u64, theta: f64) -> Self {
        let mut z = Self { n: n as f64, theta, from: 0.0, to: 0.0, sure: 0.0 };
        z.from = z.integral(1.5) - 1.0;
        z.to = z.integral(z.n + 0.5);
        z.sure = 2.0 - z.inverse(z.integral(2.5) - z.weight(2.0));
        z
    }

    fn weight(&self, x: f64) -> f64 {
        (-self.theta * x.ln()).exp()
    }

    /// ∫ t^-θ dt from 1 to x, also where θ is near 1.
    fn integral(&self, x: f64) -> f64 {
        let ln = x.ln();
        let t = (1.0 - self.theta) * ln;
        ln * if t.abs() > 1e-8 { t.exp_m1() / t } else { 1.0 + t / 2.0 }
    }

    fn inverse(&self, y: f64) -> f64 {
        // Rounding may carry the argument below -1, where the logarithm ends.
        let t = (y * (1.0 - self.theta)).max(-1.0);
        (y * if t.abs() > 1e-8 { t.ln_1p() / t } else { 1.0 - t / 2.0 }).exp()
    }

    fn next(&self, random: &mut SmallRng) -> u64 {
        loop {
            let u = self.to + random.random::<f64>() * (self.from - self.to);
            let x = self.inverse(u);
            let k = x.round().clamp(1.0, self.n);
            if k - x <= self.sure || u >= self.integral(k + 0.5) - self.weight(k) {
                return k as u64;
            }
        }
    }
}

/// Writes a number's decimal digits, zeros before them.
pub fn digits(mut n: u64, out: &mut [u8; DIGITS]) {
    for place in out.iter_mut().rev() {
        *place = b'0' + (n % 10) as u8;
        n /= 10;
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    const DRAWS: u64 = 400_000;

    fn counts(distribution: Distribution, n: u64) -> Vec<u64> {
        let (draw, mut random) = (Draw::new(distribution, n), SmallRng::seed_from_u64(7));
        let mut counts = vec![0; n as usize];
        (0..DRAWS).for_each(|_| counts[draw.next(&mut random) as usize] += 1);
        counts
    }

    /// Within five standard deviations: a right sampler fails once in a million seeds, and the seed is fixed.
    fn near(got: u64, share: f64) -> bool {
        let (n, p) = (DRAWS as f64, share);
        (got as f64 - n * p).abs() <= 5.0 * (n * p * (1.0 - p)).sqrt() + 1.0
    }

    #[test]
    fn zipf_has_the_weights_of_its_law() {
        for theta in [0.5, 0.99, 1.0, 1.2, 3.0] {
            let n = 1000;
            let counts = counts(Distribution::Zipf(theta), n);
            let all: f64 = (1..=n).map(|r| (r as f64).powf(-theta)).sum();
            for rank in [1u64, 2, 3, 5, 10, 50, 1000] {
                let p = (rank as f64).powf(-theta) / all;
                assert!(near(counts[rank as usize - 1], p), "θ {theta} rank {rank}: {}", counts[rank as usize - 1]);
            }
            let tail: u64 = counts[100..].iter().sum();
            let p = (101..=n).map(|r| (r as f64).powf(-theta)).sum::<f64>() / all;
            assert!(near(tail, p), "θ {theta}: {tail} beyond rank 100, not {}", p * DRAWS as f64);
        }
    }

    #[test]
    fn uniform_and_hot_sets_keep_their_shares() {
        let all = counts(Distribution::Uniform, 10);
        assert!(all.iter().all(|&n| near(n, 0.1)), "{all:?}");
        let all = counts(Distribution::Hot { keys: 0.1, ops: 0.9 }, 100);
        assert!(near(all[..10].iter().sum(), 0.9), "{all:?}");
        assert!(all[..10].iter().all(|&n| near(n, 0.09)) && all[10..].iter().all(|&n| near(n, 0.1 / 90.0)));
        // One key leaves nothing to choose.
        for d in [Distribution::Uniform, Distribution::Zipf(0.99), Distribution::Hot { keys: 0.1, ops: 0.9 }] {
            assert_eq!(counts(d, 1), [DRAWS]);
        }
    }

    #[test]
    fn words_for_distributions() {
        assert_eq!("zipf:0.99".parse(), Ok(Distribution::Zipf(0.99)));
        assert_eq!("hot:10%:0.9".parse(), Ok(Distribution::Hot { keys: 0.1, ops: 0.9 }));
        assert_eq!("uniform".parse::<Distribution>().map(|d| d.to_string()), Ok("uniform".into()));
        for bad in ["", "zipf", "zipf:0", "zipf:x", "hot:1:2", "hot:10%", "hot:0%:50%", "normal"] {
            assert!(bad.parse::<Distribution>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_keys_number_keeps_its_width() {
        let mut d = [0; DIGITS];
        digits(12345, &mut d);
        assert_eq!(&d, b"000000012345");
    }
}
