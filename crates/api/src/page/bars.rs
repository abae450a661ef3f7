//! Scales daily counts to bars.

/// The height of the drawing. One day is 10 wide, the bar 8: whole numbers keep the page small.
const HEIGHT: i64 = 100;

/// A bar in the units of the drawing.
#[derive(Debug, PartialEq)]
pub(crate) struct Bar {
    pub(crate) x: usize,
    pub(crate) y: i64,
    pub(crate) height: i64,
}

/// The bars of `counts`, and the round number at the top of the drawing.
pub(crate) fn bars(counts: &[i64]) -> (Vec<Bar>, i64) {
    let top = round_up(counts.iter().copied().max().unwrap_or(0));
    let bars = counts
        .iter()
        .enumerate()
        .map(|(place, &count)| {
            // A day with a single login must not look like a day without logins.
            let height = if count > 0 { scale(count, top).max(1) } else { 0 };
            Bar { x: place * 10 + 1, y: HEIGHT - height, height }
        })
        .collect();
    (bars, top)
}

fn scale(count: i64, top: i64) -> i64 {
    i64::try_from(i128::from(count) * i128::from(HEIGHT) / i128::from(top)).unwrap_or(HEIGHT)
}

/// The next number with at most two digits that are not 0.
fn round_up(count: i64) -> i64 {
    const STEPS: [i64; 10] = [10, 12, 15, 20, 25, 30, 40, 50, 60, 80];
    if count <= STEPS[0] {
        return count.max(1);
    }
    let mut power: i64 = 1;
    loop {
        for step in STEPS {
            let round = power.saturating_mul(step);
            if round >= count {
                return round;
            }
        }
        power = power.saturating_mul(10);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn top_is_round() {
        let counts = [0, 1, 3, 5, 7, 11, 4_800, 10_000, 10_001, i64::MAX];

        let tops = counts.map(round_up);

        assert_eq!(tops, [1, 1, 3, 5, 7, 12, 5_000, 10_000, 12_000, i64::MAX]);
    }

    #[test]
    fn smallest_count_stays_visible() {
        let (bars, top) = bars(&[0, 1, 5_000]);

        let heights: Vec<_> = bars.iter().map(|bar| (bar.x, bar.y, bar.height)).collect();

        assert_eq!(heights, [(1, 100, 0), (11, 99, 1), (21, 0, 100)]);
        assert_eq!(top, 5_000);
    }
}
