//! The swarm's memory: a replicated key-value store that no node leads.
//!
//! Every node keeps every cell. A write is on this node's disk when it is acknowledged, is visible here at once, and
//! is gossiped to all; what gossip loses, comparing notes with peers brings in ([`MemorySync`]). Replicas that have
//! heard the same things hold the same things, whatever the order, and never ask anyone for permission: both halves
//! of a partition write on and agree when it heals.
//!
//! The rooms, in reading order: `cell` (the merge rule, pure), `codec` (cells as bytes), `counter` (what a key is
//! worth, pure), `slot` (where a replica counts), `clock` (stamps), `fingerprint` (what a replica holds, as 256 numbers, pure), `index` (which versions those are), `engine`, `names`, `store` and `salvage` (the disk),
//! `writer` (group commit), `memory`, `space`, `watch` and `changes` (the interface), `due` and `horizon` (what time ends), `page` and `intake` (what travels, and what
//! of it is let in), `value`, `blobs`, `keeper` and `leftovers` (values too large for a cell), `versions` (what a space keeps of the past), `gossip` (deltas), `wire`, `replica`, `reconcile` and `answer` (comparing notes), and `sync` (the tasks).
//! Built on them: `document` (JSON that many edit at once) and `collection` (where documents lie and how they are found).
//!
//! Deliberately absent: reads from other nodes, locks and transactions across nodes, and any notion of a quorum.

mod addresses;
mod answer;
mod beside;
mod blobs;
mod cell;
mod changes;
mod clock;
mod codec;
mod collection;
mod commits;
mod counter;
mod document;
mod due;
pub mod engine;
mod fingerprint;
mod gossip;
mod horizon;
mod hot;
mod index;
mod intake;
mod keeper;
mod leftovers;
mod members;
mod memory;
mod moments;
mod page;
mod reconcile;
mod recover;
mod replica;
mod salvage;
mod slot;
mod space;
mod stats;
mod store;
mod sync;
mod value;
mod versions;
mod watch;
mod wire;
mod writer;

pub use blobs::{BlobError, Blobs, ByteStream, Cause, stream_of};
pub use cell::{
    Author, Cell, Content, Kept, MAX_FIELD, MAX_KEY, MAX_SPACE, MAX_VALUE, SpaceError, SpaceName, Stamp,
    StampError, Version,
};
pub use changes::{Cursor, CursorError};
pub use codec::MalformedCell;
pub use collection::{
    Collection, CollectionError, MAX_COLLECTION, MAX_ID,
    bulk::{CollectionSummary, PutAllError, new_id},
    documents::Documents,
    error::DocumentError,
    find::{Explain, Find, FindError, Found, MAX_PAGE, Page},
    indexes::{IndexDefinition, IndexError, IndexState, IndexStatus, MAX_INDEXES},
    is_documents_space,
    query::{Comparison, Filter, QueryError, QueryProblem, Subject, Test},
    read::DocumentStats,
    shape::{Places, Projection, ShapeError, Sort},
    write::{LARGE_DOCUMENT, MAX_DOCUMENT, MAX_HISTORY, Written},
};
pub use counter::IncrementError;
pub use document::{
    edit::{Edit, EditError, EditProblem, MAX_EDITS},
    patch::merge_patch,
    pointer::{MAX_POINTER, Pointer, PointerError},
};
pub use memory::{Durability, Memory, MemoryOptions, Observer};
pub use space::{
    Batch, Change, Condition, Entry, Glance, Holding, KeyKind, KeyRange, KeyValue, Lifetime, MAX_BATCH_BYTES,
    MAX_BATCH_CELLS, MAX_MEMBER, Outcome, Put, Space,
};
pub use stats::{MemoryStats, Offender};
pub use store::{ReadError, StoreError};
pub use sync::{JoinError, MemorySync};
pub use value::{BlobName, Large, MAX_LARGE, Payload, Value};
pub use versions::{KeyVersion, MAX_VERSIONS, SpaceSettings};
pub use watch::{Event, Watch};
pub use writer::WriteError;
