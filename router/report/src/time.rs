//! Times as pages and logs show them.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Year, month, day, hour, minute and second of a time, UTC, and its microseconds.
fn civil(time: SystemTime) -> ([u64; 6], u32) {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, seconds) = (since.as_secs() / 86400, since.as_secs() % 86400);
    // Days from 0000-03-01, in eras of 400 years, so that the leap day ends the year.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let clock = [
        year,
        month,
        day,
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
    ];
    (clock, since.subsec_nanos())
}

/// Returns a time as log lines show it: UTC, with microseconds.
pub fn log_time(time: SystemTime) -> String {
    let ([year, month, day, hour, minute, second], nanos) = civil(time);
    let micros = nanos / 1000;
    format!("{year:04}/{month:02}/{day:02} {hour:02}:{minute:02}:{second:02}.{micros:06}")
}

/// Returns a time as RFC 3339 writes it, UTC, without superfluous digits.
pub fn rfc3339(time: SystemTime) -> String {
    let ([year, month, day, hour, minute, second], nanos) = civil(time);
    let mut text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    if nanos > 0 {
        // Writing to a String cannot fail.
        let _ = write!(text, ".{nanos:09}");
        text.truncate(text.trim_end_matches('0').len());
    }
    text.push('Z');
    text
}

/// Parses a duration like `90`, `5s`, `1m30s`, `12h` or `30d`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let error = || format!("{text:?} is no duration like 5s, 12h or 30d");
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        let number: u64 = rest[..digits].parse().map_err(|_| error())?;
        rest = &rest[digits..];
        let unit = rest
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(rest.len());
        let millis: u64 = match &rest[..unit] {
            "ms" => 1,
            "" | "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(error()),
        };
        rest = &rest[unit..];
        let part = number
            .checked_mul(millis)
            .map(Duration::from_millis)
            .ok_or_else(error)?;
        total = total.checked_add(part).ok_or_else(error)?;
    }
    if text.is_empty() {
        Err(error())
    } else {
        Ok(total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        let at = |seconds, nanos| rfc3339(UNIX_EPOCH + Duration::new(seconds, nanos));
        assert_eq!(at(0, 0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_782_399, 0), "2000-02-28T23:59:59Z");
        assert_eq!(at(951_782_400, 0), "2000-02-29T00:00:00Z");
        assert_eq!(at(951_868_800, 0), "2000-03-01T00:00:00Z");
        assert_eq!(
            at(1_795_320_923, 858_856_900),
            "2026-11-22T04:15:23.8588569Z"
        );
        assert_eq!(at(4_107_542_400, 1), "2100-03-01T00:00:00.000000001Z");
        let time = UNIX_EPOCH + Duration::new(1_136_214_245, 1_999);
        assert_eq!(log_time(time), "2006/01/02 15:04:05.000001");
    }

    #[test]
    fn durations() {
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("7"), Ok(Duration::from_secs(7)));
        for bad in [
            "",
            "s",
            "5y",
            "-1s",
            "99999999999999999999d",
            "184467440737095516d",
        ] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
