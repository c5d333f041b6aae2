//! How long ago, as an operator writes it: `90s`, `30m`, `24h`, `30d`.

use std::time::Duration;

/// Reads a whole number and its unit.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let said = || "must be a whole number and s, m, h or d, like 24h".to_owned();
    let unit = text.chars().last().ok_or_else(said)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(said()),
    };
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| said())?;
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_has_a_unit() {
        assert_eq!(parse("24h"), Ok(Duration::from_hours(24)));
        assert_eq!(parse("0s"), Ok(Duration::ZERO));
        for bad in ["", "24", "h", "-1h", "1.5h", "1w", "é", "99999999999999999999d"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
