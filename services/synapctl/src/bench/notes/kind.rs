//! What of a mix of calls the next one is.

/// One kind of call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Get,
    Create,
    Update,
    Search,
}

impl Kind {
    pub(super) const ALL: [Self; 4] = [Self::Get, Self::Create, Self::Update, Self::Search];

    /// The kind of the call with this number: 70, 15, 10 and 5 of a hundred.
    pub(super) fn of(call: usize) -> Self {
        match call % 20 {
            0..14 => Self::Get,
            14..17 => Self::Create,
            17..19 => Self::Update,
            _ => Self::Search,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Create => "create",
            Self::Update => "update",
            Self::Search => "search",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_hundred_calls_seventy_read() {
        let of = |kind| (0..100).filter(|call| Kind::of(7_919 * call) == kind).count();
        assert_eq!(Kind::ALL.map(of), [70, 15, 10, 5]);
    }
}
