//! The few statistics of the report. Ratios are taken within a pair, then their median: two runs a minute
//! apart share the machine's mood, two runs of different pairs may not.

/// Median; the mean of the middle two when the count is even. `None` without values.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        length if length % 2 == 1 => sorted.get(middle).copied(),
        _ => Some(f64::midpoint(*sorted.get(middle - 1)?, *sorted.get(middle)?)),
    }
}

/// Smallest and largest value. `None` without values.
pub(crate) fn range(values: &[f64]) -> Option<[f64; 2]> {
    let finite = || values.iter().copied().filter(|value| value.is_finite());
    let low = finite().min_by(f64::total_cmp)?;
    let high = finite().max_by(f64::total_cmp)?;
    Some([low, high])
}

/// One pair of runs, as values of the same unit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Pair {
    /// Ours.
    pub(crate) ours: f64,
    /// The peer's of the same pair.
    pub(crate) peer: f64,
}

/// What a row reports of its pairs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Paired {
    /// Median of ours.
    pub(crate) ours: f64,
    /// Median of the peer's.
    pub(crate) peer: f64,
    /// Median of the pairwise ratios ours / peer; not the ratio of the medians.
    pub(crate) ratio: f64,
    /// Smallest and largest pairwise ratio.
    pub(crate) spread: [f64; 2],
}

/// Sums up pairs; `None` when there are none or a peer's value is not positive.
pub(crate) fn paired(pairs: &[Pair]) -> Option<Paired> {
    if pairs.iter().any(|pair| pair.peer <= 0.0) {
        return None;
    }
    let ratios: Vec<f64> = pairs.iter().map(|pair| pair.ours / pair.peer).collect();
    let ours: Vec<f64> = pairs.iter().map(|pair| pair.ours).collect();
    let peer: Vec<f64> = pairs.iter().map(|pair| pair.peer).collect();
    Some(Paired { ours: median(&ours)?, peer: median(&peer)?, ratio: median(&ratios)?, spread: range(&ratios)? })
}

/// How much dearer `now` is than `before`, as a share (0.25 = 25 %). `None` when `before` is not positive.
pub(crate) fn dearer(before: f64, now: f64) -> Option<f64> {
    (before > 0.0).then(|| now / before - 1.0)
}

/// Rounds to `digits` significant digits: results are read by people and diffed.
pub(crate) fn significant(value: f64, digits: i32) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    // The decimal exponent of any finite f64 fits an i32 many times over.
    let exponent = value.abs().log10().floor() as i32;
    let shift = digits - 1 - exponent;
    if shift >= 0 {
        let scale = 10f64.powi(shift);
        (value * scale).round() / scale
    } else {
        let scale = 10f64.powi(-shift);
        (value / scale).round() * scale
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(left: f64, right: f64) -> bool {
        (left - right).abs() < 1e-9
    }

    #[test]
    fn median_of_odd_even_and_none() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[7.0]), Some(7.0));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn values_that_are_not_numbers_are_left_out() {
        assert_eq!(median(&[f64::NAN, 1.0, f64::INFINITY]), Some(1.0));
        assert_eq!(range(&[f64::NAN]), None);
    }

    #[test]
    fn ratio_is_the_median_of_ratios_not_the_ratio_of_medians() {
        // A machine that slows down by half after the first pair: medians would mix the two moods.
        let pairs =
            [Pair { ours: 400.0, peer: 100.0 }, Pair { ours: 150.0, peer: 50.0 }, Pair { ours: 200.0, peer: 40.0 }];
        let summary = paired(&pairs).unwrap();
        assert!(close(summary.ratio, 4.0), "{summary:?}");
        assert!(close(summary.ours / summary.peer, 4.0), "{summary:?}");
        let pairs =
            [Pair { ours: 300.0, peer: 100.0 }, Pair { ours: 200.0, peer: 20.0 }, Pair { ours: 100.0, peer: 50.0 }];
        let summary = paired(&pairs).unwrap();
        assert!(close(summary.ratio, 3.0), "{summary:?}");
        assert!(close(summary.ours / summary.peer, 4.0), "{summary:?}");
    }

    #[test]
    fn spread_is_the_range_of_the_pairwise_ratios() {
        let pairs = [Pair { ours: 10.0, peer: 5.0 }, Pair { ours: 9.0, peer: 3.0 }];
        let [low, high] = paired(&pairs).unwrap().spread;
        assert!(close(low, 2.0) && close(high, 3.0), "{low} {high}");
    }

    #[test]
    fn a_peer_that_did_nothing_is_no_baseline() {
        assert_eq!(paired(&[Pair { ours: 1.0, peer: 0.0 }]), None);
        assert_eq!(paired(&[]), None);
    }

    #[test]
    fn dearer_is_relative_to_the_committed_figure() {
        assert!(close(dearer(0.4, 0.5).unwrap(), 0.25));
        assert!(close(dearer(0.5, 0.4).unwrap(), -0.2));
        assert_eq!(dearer(0.0, 1.0), None);
    }

    #[test]
    fn significant_keeps_digits_at_both_ends() {
        assert!(close(significant(0.123_456, 3), 0.123));
        assert!(close(significant(1_234_567.0, 4), 1_235_000.0));
        assert!(close(significant(0.0, 3), 0.0));
    }
}
