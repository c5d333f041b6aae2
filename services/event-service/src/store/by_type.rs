//! The feed up to its horizon, for who wants some types and does not wait for more.

use std::{collections::VecDeque, sync::Arc};

use futures::{Stream, stream};

use super::{Database, DatabaseError, Store, feed::CursorError};
use crate::domain::{Filter, Place, StoredEvent};

/// An event, or none after a step that found none and at the end; and where to go on.
pub(crate) type Progress = (Option<Arc<StoredEvent>>, Place);

struct Scan {
    database: Database,
    filter: Filter,
    place: Place,
    pending: VecDeque<Arc<StoredEvent>>,
    left: u64,
    /// Whether the end of the last step has been told.
    is_told: bool,
    is_over: bool,
}

impl Store {
    /// At most `limit` events after a place. The first step is taken before this returns.
    pub(crate) async fn read_by_type(
        &self,
        filter: Filter,
        after: Place,
        limit: u64,
    ) -> Result<impl Stream<Item = Result<Progress, DatabaseError>> + Send + use<>, CursorError>
    {
        let mut scan = Scan {
            database: self.database.clone(),
            filter,
            place: self.checked(after).await?,
            pending: VecDeque::new(),
            left: limit,
            is_told: false,
            is_over: false,
        };
        scan.step().await?;
        Ok(stream::try_unfold(scan, |mut scan| async {
            Ok(scan.next().await?.map(|progress| (progress, scan)))
        }))
    }
}

impl Scan {
    async fn step(&mut self) -> Result<(), DatabaseError> {
        let step = self.database.step(self.place, &self.filter).await?;
        self.place = step.end;
        self.pending = step.events.into();
        (self.is_told, self.is_over) = (false, step.is_at_horizon);
        Ok(())
    }

    async fn next(&mut self) -> Result<Option<Progress>, DatabaseError> {
        loop {
            if self.left > 0
                && let Some(event) = self.pending.pop_front()
            {
                self.left -= 1;
                let place = event.place();
                if self.left == 0 {
                    (self.place, self.is_over) = (place, true);
                }
                return Ok(Some((Some(event), place)));
            }
            if !self.is_told {
                self.is_told = true;
                return Ok(Some((None, self.place)));
            }
            if self.is_over {
                return Ok(None);
            }
            self.step().await?;
        }
    }
}
