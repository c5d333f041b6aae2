//! The first events of a read, as many as a page takes, out of however many in whatever order.

use super::super::PAGE_BYTES;
use crate::domain::{Read, StoredEvent};

pub(super) struct Head<'a> {
    read: &'a Read,
    /// Events of the page at most.
    wanted: usize,
    /// Twice what the page takes at most, give or take an event: they are sorted when that is reached.
    pub(super) events: Vec<StoredEvent>,
    /// Of their bodies.
    bytes: usize,
    /// Whether one was left out.
    pub(super) is_cut: bool,
}

impl<'a> Head<'a> {
    pub(super) fn new(read: &'a Read, wanted: usize) -> Self {
        Self { read, wanted, events: Vec::new(), bytes: 0, is_cut: false }
    }

    pub(super) fn push(&mut self, event: StoredEvent) {
        self.bytes += event.body_bytes();
        self.events.push(event);
        if self.events.len() >= 2 * self.wanted || self.bytes >= 2 * PAGE_BYTES as usize {
            self.cut();
        }
    }

    /// Sorts them, and leaves out what is not of the page. As in the statement of a page, none comes
    /// after the first that brings it to so many bytes.
    pub(super) fn cut(&mut self) {
        self.read.sort(&mut self.events);
        let all = self.events.len();
        self.bytes = 0;
        let fits = self.events.iter().take(self.wanted).take_while(|event| {
            let is_begun = self.bytes < PAGE_BYTES as usize;
            self.bytes += if is_begun { event.body_bytes() } else { 0 };
            is_begun
        });
        let fits = fits.count();
        self.events.truncate(fits);
        self.is_cut |= fits < all;
    }

    /// Whether a page of these, right after they were cut, takes no more.
    pub(super) fn is_full(&self) -> bool {
        self.events.len() >= self.wanted || self.bytes >= PAGE_BYTES as usize
    }
}

#[cfg(test)]
mod tests {
    use synap_types::UserId;
    use uuid::Uuid;

    use super::*;
    use crate::domain::Which;

    #[test]
    fn however_many_come_it_keeps_what_a_page_takes() {
        let which = Which::Correlated { correlation_id: Uuid::nil(), after: None };
        for (backwards, bytes, page) in [(false, 10, 5), (true, 10, 5), (false, 400 * 1024, 3)] {
            let user = UserId::parse("ada").unwrap();
            let read = Read { user, which: which.clone(), backwards, limit: 5 };
            let mut head = Head::new(&read, 5);
            // Each of 0 to 100 once, in a wild order.
            for number in (0..101).map(|n| n * 37 % 101) {
                head.push(StoredEvent::example(number, bytes));
                assert!(head.events.len() <= 2 * 5, "it holds too many");
                let sum: usize = head.events.iter().map(StoredEvent::body_bytes).sum();
                assert!(sum <= 2 * PAGE_BYTES as usize + bytes, "it holds {sum} bytes");
            }
            head.cut();
            let found: Vec<i64> = head.events.iter().map(|event| event.pos).collect();
            let expected: Vec<i64> =
                if backwards { (96..=100).rev().collect() } else { (0..page).collect() };
            assert_eq!((found, head.is_cut, head.is_full()), (expected, true, true));
        }
        let read = Read { user: UserId::parse("ada").unwrap(), which, backwards: false, limit: 5 };
        let mut head = Head::new(&read, 5);
        head.push(StoredEvent::example(1, 10));
        head.cut();
        assert!(!head.is_cut && !head.is_full());
    }
}
