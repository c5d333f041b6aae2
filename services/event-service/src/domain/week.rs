//! Weeks, by which the events are partitioned.

use chrono::{DateTime, Datelike as _, Days, NaiveDate, NaiveTime, Utc, Weekday};

/// A week of ISO 8601: from a Monday to the next, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Week(NaiveDate);

impl Week {
    /// The week that a moment is in.
    pub(crate) fn of(time: DateTime<Utc>) -> Self {
        let week = time.date_naive().week(Weekday::Mon);
        Self(week.checked_first_day().unwrap_or(NaiveDate::MIN))
    }

    /// The week so many weeks later.
    pub(crate) fn plus(self, weeks: u32) -> Self {
        Self(self.0.checked_add_days(Days::new(u64::from(weeks) * 7)).unwrap_or(NaiveDate::MAX))
    }

    /// The week so many weeks before.
    pub(crate) fn minus(self, weeks: u32) -> Self {
        Self(self.0.checked_sub_days(Days::new(u64::from(weeks) * 7)).unwrap_or(NaiveDate::MIN))
    }

    /// Its first moment.
    pub(crate) fn begins_at(self) -> DateTime<Utc> {
        self.0.and_time(NaiveTime::MIN).and_utc()
    }

    /// The first moment after it.
    pub(crate) fn ends_at(self) -> DateTime<Utc> {
        self.plus(1).begins_at()
    }

    /// The name of its partition in the schema `event_store`.
    pub(crate) fn partition(self) -> String {
        let week = self.0.iso_week();
        format!("events_{:04}w{:02}", week.year(), week.week())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_week_goes_from_monday_to_monday_and_is_named_as_iso_does() {
        let week = |text: &str| Week::of(text.parse().unwrap());
        for (moment, name, begins) in [
            ("2026-11-23T00:00:00Z", "events_2026w48", "2026-11-23"),
            ("2026-11-29T23:59:59.999999Z", "events_2026w48", "2026-11-23"),
            // The first days of 2027 are of the last week of 2026.
            ("2027-01-03T12:00:00Z", "events_2026w53", "2026-12-28"),
            ("2024-12-30T00:00:00Z", "events_2025w01", "2024-12-30"),
        ] {
            let week = week(moment);
            assert_eq!(week.partition(), name);
            assert_eq!(week.begins_at().date_naive().to_string(), begins);
            assert_eq!(week.ends_at(), week.begins_at() + Days::new(7));
        }
        assert_eq!(week("2026-12-28T00:00:00Z").plus(1).minus(2).partition(), "events_2026w52");
    }
}
