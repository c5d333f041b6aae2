//! What a commit asks for: a new entity, or a write on one that is there.

use synap_proto::{
    entity as pb,
    field::{self, Checked, Violation},
};

use super::{
    MAX_PREVIEW_BYTES, MAX_SEARCH_BYTES, MAX_TITLE_BYTES, check_place, check_tags, nested, phase,
    text,
};
use crate::domain::{Act, Change, Edit, File, NewBody, Purgeable, Repair, Update};

/// What is committed.
#[expect(clippy::large_enum_variant, reason = "it is taken apart at once")]
pub(in crate::grpc) enum Commit {
    Create(Change),
    Edit(Edit),
    Repair(Repair),
}

impl TryFrom<pb::CommitOperationRequest> for Commit {
    type Error = Violation;

    fn try_from(message: pb::CommitOperationRequest) -> Checked<Self> {
        let asked = [
            ("create", message.create.is_some()),
            ("delete", message.delete.is_some()),
            ("update", message.update.is_some()),
            ("undelete", message.undelete.is_some()),
            ("purge", message.purge.is_some()),
            ("repair", message.repair.is_some()),
        ];
        let mut asked = asked.iter().filter(|(_, is_set)| *is_set).map(|(name, _)| *name);
        let first = asked.next().unwrap_or("create");
        if let Some(second) = asked.next() {
            return Err(Violation::new(second, format!("cannot be beside {first}")));
        }
        match first {
            "create" => Change::try_from(message).map(Self::Create),
            "repair" => Repair::try_from(message).map(Self::Repair),
            _ => Edit::try_from(message).map(Self::Edit),
        }
    }
}

impl TryFrom<pb::CommitOperationRequest> for Edit {
    type Error = Violation;

    fn try_from(message: pb::CommitOperationRequest) -> Checked<Self> {
        let phase = phase("phase", message.phase())?;
        let (act, expected_version) = if let Some(update) = message.update {
            let expected = update.expected_version;
            let update = Update::try_from(update).map_err(|why| why.within("update"))?;
            (Act::Update(Box::new(update)), expected)
        } else if let Some(delete) = message.delete {
            (Act::Delete, delete.expected_version)
        } else if let Some(undelete) = message.undelete {
            (Act::Undelete, undelete.expected_version)
        } else {
            (Act::Purge, 0)
        };
        field::within("expected_version", expected_version, 0, i32::MAX)
            .map_err(|why| why.within(act.name()))?;
        if let Some(body) = act.body() {
            check_place(phase, body.file.as_ref(), body.content_block.as_deref())
                .map_err(|why| why.within("update.body"))?;
        }
        Ok(Self {
            attempt: nested("operation", message.operation)?,
            phase,
            act,
            expected_version: Some(expected_version).filter(|version| *version > 0),
            event: nested("event", message.event)?,
        })
    }
}

impl TryFrom<pb::EntityUpdate> for Update {
    type Error = Violation;

    fn try_from(message: pb::EntityUpdate) -> Checked<Self> {
        if let Some(title) = &message.title {
            text("title", title, MAX_TITLE_BYTES)?;
        }
        let tags = message.tags.map(|tags| tags.tags);
        if let Some(tags) = &tags {
            check_tags("tags.tags", tags)?;
        }
        let body = message.body.map(NewBody::try_from).transpose();
        Ok(Self { title: message.title, tags, body: body.map_err(|why| why.within("body"))? })
    }
}

impl TryFrom<pb::EntityBody> for NewBody {
    type Error = Violation;

    fn try_from(message: pb::EntityBody) -> Checked<Self> {
        text("preview", &message.preview, MAX_PREVIEW_BYTES)?;
        if let Some(body) = &message.content_block {
            // How large it may be is the limit of the message.
            text("content_block", body, usize::MAX)?;
        }
        if let Some(body) = &message.search_text {
            text("search_text", body, MAX_SEARCH_BYTES)?;
        }
        Ok(Self {
            preview: message.preview,
            file: message.file.map(File::try_from).transpose().map_err(|v| v.within("file"))?,
            content_block: message.content_block,
            search_text: message.search_text,
        })
    }
}

impl From<Purgeable> for pb::PurgeableEntity {
    fn from(entity: Purgeable) -> Self {
        Self {
            user_id: entity.user_id,
            entity_type: entity.entity_type,
            entity_id: entity.entity_id.to_string(),
        }
    }
}
