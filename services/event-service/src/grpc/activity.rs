//! GetDailyActivity: messages to checked types, and back.

use chrono::NaiveDate;
use synap_proto::{
    event::{DailyActivity, GetDailyActivityRequest, GetDailyActivityResponse},
    field::{self, Checked, Violation},
};

use crate::store::{Activity, ActivityKey, ActivityRead};

/// Rows of one page at most, and where the caller does not say.
const MAX_PAGE: i32 = 10_000;
const PAGE: i64 = 1_000;

/// Days that one question spans at most: ten years.
const MAX_DAYS: i64 = 3_660;

pub(super) fn read(request: GetDailyActivityRequest) -> Checked<ActivityRead> {
    let days = days(&request.start_date, &request.end_date)?;
    let limit = match field::within("page_size", request.page_size, 0, MAX_PAGE)? {
        0 => PAGE,
        size => size.into(),
    };
    let after = if request.page_token.is_empty() {
        ActivityKey::before(days.0)
    } else {
        page_token(&request.page_token)
            .filter(|key| (days.0..=days.1).contains(&key.day))
            .ok_or_else(|| Violation::new("page_token", "is not one of this question's answers"))?
    };
    Ok(ActivityRead {
        user: field::user_id("user_id", request.user_id)?,
        after,
        last_day: days.1,
        limit,
    })
}

/// The first day and the last.
pub(super) fn days(start: &str, end: &str) -> Checked<(NaiveDate, NaiveDate)> {
    let (start, end) = (field::date("start_date", start)?, field::date("end_date", end)?);
    if !(0..=MAX_DAYS).contains(&(end - start).num_days()) {
        let limit = format!("must be the start or at most {MAX_DAYS} days after it");
        return Err(Violation::new("end_date", limit));
    }
    Ok((start, end))
}

pub(super) fn answer(read: &ActivityRead, rows: Vec<Activity>) -> GetDailyActivityResponse {
    let is_full = i64::try_from(rows.len()).is_ok_and(|rows| rows == read.limit);
    let last = rows.last().filter(|_| is_full);
    let next_page_token = last.map_or_else(String::new, |last| {
        format!("{} {} {}", last.day, last.event_type, last.aggregate_type)
    });
    let activities = rows.into_iter().map(|row| DailyActivity {
        date: row.day.to_string(),
        r#type: row.event_type,
        aggregate_type: row.aggregate_type,
        count: row.count,
    });
    GetDailyActivityResponse { activities: activities.collect(), next_page_token }
}

/// The row that a page ended with: neither of the types has a space.
fn page_token(text: &str) -> Option<ActivityKey> {
    let mut parts = text.splitn(3, ' ');
    Some(ActivityKey {
        day: field::date("page_token", parts.next()?).ok()?,
        event_type: parts.next()?.to_owned(),
        aggregate_type: parts.next()?.to_owned(),
    })
}
