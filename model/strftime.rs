//! Today's date for chat templates that print it, in UTC.

use std::time::{SystemTime, UNIX_EPOCH};

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] =
    ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// Formats the present moment as Python's `strftime`; directives it does not know stay as they are.
pub(super) fn now(format: &str) -> String {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format_at(elapsed.as_secs(), format)
}

fn format_at(seconds: u64, format: &str) -> String {
    let (day, time) = (seconds / 86400, seconds % 86400);
    let (year, month, date) = civil(day);
    let weekday = DAYS[((day + 4) % 7) as usize];
    let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
    let name = MONTHS[month - 1];
    let mut text = String::new();
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            text.push(letter);
            continue;
        }
        match letters.next() {
            Some('Y') => text += &year.to_string(),
            Some('y') => text += &format!("{:02}", year % 100),
            Some('m') => text += &format!("{month:02}"),
            Some('d') => text += &format!("{date:02}"),
            Some('B') => text += name,
            Some('b') => text += &name[..3],
            Some('A') => text += weekday,
            Some('a') => text += &weekday[..3],
            Some('H') => text += &format!("{hour:02}"),
            Some('M') => text += &format!("{minute:02}"),
            Some('S') => text += &format!("{second:02}"),
            Some('F') => text += &format!("{year}-{month:02}-{date:02}"),
            Some('%') => text.push('%'),
            Some(other) => text.extend(['%', other]),
            None => text.push('%'),
        }
    }
    text
}

/// Returns year, month (from 1) and day of the month, of a day since 1970-01-01 (after Hinnant's `civil_from_days`).
fn civil(day: u64) -> (u64, usize, u64) {
    let day = day + 719_468;
    let (era, of_era) = (day / 146_097, day % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let date = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year + era * 400 + u64::from(month <= 2), month as usize, date)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        // Seconds and texts by Python's datetime.
        let at = |seconds| format_at(seconds, "%A %d %B %Y %b %a %y-%m %H:%M:%S %F %% %q");
        assert_eq!(at(0), "Thursday 01 January 1970 Jan Thu 70-01 00:00:00 1970-01-01 % %q");
        assert_eq!(
            at(1_709_209_925),
            "Thursday 29 February 2024 Feb Thu 24-02 12:32:05 2024-02-29 % %q"
        );
        assert_eq!(
            at(4_102_444_799),
            "Thursday 31 December 2099 Dec Thu 99-12 23:59:59 2099-12-31 % %q"
        );
    }
}
