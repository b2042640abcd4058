//! Formulas of the Storj v3 whitepaper (github.com/storj/whitepaper, `storjv3.tex`; seen).

/// The nine repair-bandwidth ratios of its decision table: MTTF in months, k, n, m, and bytes of repair for each byte of
/// user data and month as printed. (The nines beside them are no target: they are of a chance per repair time, which is
/// not stated.)
pub const RATIOS: [(f64, u8, u8, u8, &str); 9] = [
    (1.0, 20, 40, 35, "9.36"),
    (6.0, 20, 40, 30, "0.87"),
    (12.0, 20, 40, 25, "0.31"),
    (1.0, 30, 60, 35, "3.40"),
    (6.0, 30, 70, 40, "0.60"),
    (12.0, 30, 80, 45, "0.31"),
    (1.0, 40, 80, 60, "5.21"),
    (6.0, 40, 120, 50, "0.52"),
    (12.0, 40, 120, 45, "0.24"),
];

/// Bytes of repair for each byte of user data and time: a (n - m + k) / (k ln(n/m)), a = 1/MTTF.
///
/// The logarithm stands for the sum over single deaths, and the n - m + k for one repair of all that is missing when
/// the count reaches m. That is an approximation of [`repair_ratio_of_the_chain`].
pub fn repair_ratio(mttf: f64, k: u8, n: u8, m: u8) -> f64 {
    let (k, n, m) = (f64::from(k), f64::from(n), f64::from(m));
    (n - m + k) / (mttf * k * (n / m).ln())
}

/// The same without the approximation, if repair is at once: a cycle takes the sum of 1/(j a) for j from m + 1 to n.
pub fn repair_ratio_of_the_chain(mttf: f64, k: u8, n: u8, m: u8) -> f64 {
    let cycle: f64 = (m + 1..=n).map(|alive| mttf / f64::from(alive)).sum();
    f64::from(n - m + k) / (f64::from(k) * cycle)
}

/// The chance of no loss in a month, as printed: Poisson with mean n p. It lets more than n shards be lost, so no
/// network of independent holders comes near it where n is small: see [`super::loss_without_repair`].
pub fn printed_durability(churn: f64, k: u8, n: u8) -> f64 {
    let mean = churn * f64::from(n);
    let term = |lost: u8| (f64::from(lost) * mean.ln() - mean - libm::lgamma(f64::from(lost) + 1.0)).exp();
    (0..=n - k).map(term).sum()
}
