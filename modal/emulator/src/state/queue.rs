//! Queues: partitions of opaque items, first in, first out.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Creation, Now, State, own};
use crate::{error::Error, ids::new_id, store::Record};

/// Modal's limits.
const MAX_PARTITIONS: usize = 100_000;
const MAX_ITEMS: usize = 5_000;
const MAX_ITEM_BYTES: usize = 1 << 20;
const MAX_PARTITION_BYTES: usize = 64 << 20;
const MAX_KEY_BYTES: usize = 64;
/// How long a partition is kept after its last item was put, unless that item sets it.
const DEFAULT_TTL_SECONDS: i32 = 24 * 3600;

/// A Queue.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Queue {
    pub id: String,
    /// Empty for an anonymous Queue.
    pub name: String,
    pub environment: String,
    pub created_at: f64,
    pub ephemeral: bool,
    /// The partitions that have items.
    #[serde(skip)]
    partitions: BTreeMap<Bytes, Partition>,
}

impl Record for Queue {
    const KIND: &'static str = "queue";
    fn id(&self) -> &str {
        &self.id
    }
}

#[derive(Debug, Clone, Default)]
struct Partition {
    items: VecDeque<QueueItem>,
    bytes: usize,
}

/// A stored item.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct QueueItem {
    /// The Queue's id, the partition in hex, and the position in the partition.
    id: String,
    /// When its partition expires if no item is put after it.
    expires_at: f64,
    #[serde(skip)]
    pub value: Bytes,
}

impl Record for QueueItem {
    const KIND: &'static str = "queue-item";
    fn id(&self) -> &str {
        &self.id
    }
    fn payload(&self) -> Bytes {
        self.value.clone()
    }
    fn set_payload(&mut self, payload: Bytes) {
        self.value = payload;
    }
}

impl QueueItem {
    fn id_of(queue_id: &str, partition: &[u8], sequence: u64) -> String {
        format!("{queue_id}/{}/{sequence:016x}", hex::encode(partition))
    }

    /// Its position in its partition, by which iterators refer to it.
    pub fn sequence(&self) -> &str {
        self.id.rsplit('/').next().unwrap_or_default()
    }

    /// The Queue's id and the partition, if the record's id has that form.
    pub fn place(&self) -> Option<(&str, Bytes)> {
        let (queue_id, rest) = self.id.split_once('/')?;
        let (partition, _) = rest.split_once('/')?;
        Some((queue_id, hex::decode(partition).ok()?.into()))
    }
}

impl Partition {
    fn push(&mut self, item: QueueItem) {
        self.bytes += item.value.len();
        self.items.push_back(item);
    }

    /// Whether it has expired. The last item decides, because it was put last.
    fn is_expired(&self, now: Now) -> bool {
        self.items.back().is_none_or(|last| last.expires_at <= now.wall)
    }

    /// A position after all earlier ones, even if those were removed and the server was restarted.
    fn next_sequence(&self, now: Now) -> u64 {
        let after_last =
            self.items.back().and_then(|last| u64::from_str_radix(last.sequence(), 16).ok()).map(|n| n + 1);
        after_last.unwrap_or(0).max((now.wall * 1e6) as u64)
    }
}

impl Queue {
    /// How many partitions have items.
    pub fn partitions(&self, now: Now) -> usize {
        self.partitions.values().filter(|partition| !partition.is_expired(now)).count()
    }

    /// How many items are in a partition, or in all.
    pub fn len(&self, partition: Option<&Bytes>, now: Now) -> usize {
        let wanted = self.partitions.iter().filter(|(key, _)| partition.is_none_or(|partition| partition == *key));
        wanted.filter(|(_, partition)| !partition.is_expired(now)).map(|(_, partition)| partition.items.len()).sum()
    }

    /// The items of a partition after a position, up to about `limit` bytes of them.
    pub fn after(&self, partition: &Bytes, sequence: &str, limit: usize, now: Now) -> Vec<QueueItem> {
        let Some(partition) = self.partitions.get(partition).filter(|p| !p.is_expired(now)) else { return Vec::new() };
        let mut bytes = 0;
        let enough = |item: &&QueueItem| {
            let more = bytes < limit;
            bytes += item.value.len();
            more
        };
        partition.items.iter().filter(|item| item.sequence() > sequence).take_while(enough).cloned().collect()
    }

    /// Restores a stored item.
    pub(super) fn restore(&mut self, partition: Bytes, item: QueueItem) {
        self.partitions.entry(partition).or_default().push(item);
    }
}

impl State {
    /// The Queue of an id.
    pub fn queue(&self, id: &str) -> Result<&Queue, Error> {
        self.item_queues.get(id).ok_or_else(|| Error::not_found("Queue", id))
    }

    fn queue_mut(&mut self, id: &str) -> Result<&mut Queue, Error> {
        self.item_queues.get_mut(id).ok_or_else(|| Error::not_found("Queue", id))
    }

    /// Gets or creates a Queue; returns its id.
    pub fn get_or_create_queue(
        &mut self,
        request: &modal_proto::QueueGetOrCreateRequest,
        now: Now,
    ) -> Result<String, Error> {
        let (name, environment) = (&request.deployment_name, &self.environment(&request.environment_name)?);
        let existing =
            self.item_queues.values().find(|q| !q.name.is_empty() && q.name == *name && q.environment == *environment);
        let creation = Creation::decide("Queue", name, request.object_creation_type, existing.map(|q| q.id.clone()))?;
        let (name, ephemeral) = match creation {
            Creation::Existing(id) => return Ok(id),
            Creation::Overwrite(id) => {
                self.clear_queue(&id, None)?;
                return Ok(id);
            }
            Creation::Named => (name.clone(), false),
            Creation::Anonymous { ephemeral } => (String::new(), ephemeral),
        };
        let queue = Queue {
            id: new_id("qu"),
            name,
            environment: environment.to_owned(),
            created_at: now.wall,
            ephemeral,
            partitions: BTreeMap::new(),
        };
        let id = queue.id.clone();
        self.save(&queue);
        self.item_queues.insert(id.clone(), queue);
        Ok(id)
    }

    /// Puts items at the end of a partition: all of them, or none if they do not fit.
    pub fn put_queue(
        &mut self,
        id: &str,
        key: Bytes,
        values: Vec<Bytes>,
        ttl_seconds: i32,
        now: Now,
    ) -> Result<(), Error> {
        let ttl = match ttl_seconds {
            0 => DEFAULT_TTL_SECONDS,
            seconds if seconds > 0 => seconds,
            _ => return Err(Error::invalid("partition_ttl_seconds", "it is negative")),
        };
        let bytes = check_items(&key, &values)?;
        self.expire_partition(id, &key, now)?;
        let queue = self.queue_mut(id)?;
        if !queue.partitions.contains_key(&key) && queue.partitions.len() >= MAX_PARTITIONS {
            let reason = "is full: it has as many partitions as a Queue may have";
            return Err(Error::Full { kind: "Queue", id: id.to_owned(), reason });
        }
        let partition = queue.partitions.entry(own(&key)).or_default();
        if partition.items.len() + values.len() > MAX_ITEMS || partition.bytes + bytes > MAX_PARTITION_BYTES {
            if partition.items.is_empty() {
                queue.partitions.remove(&key);
            }
            let reason = "is full: its partition has no room for these items";
            return Err(Error::Full { kind: "Queue", id: id.to_owned(), reason });
        }
        let (first, expires_at) = (partition.next_sequence(now), now.wall + f64::from(ttl));
        let mut added = Vec::with_capacity(values.len());
        for (sequence, value) in (first..).zip(values) {
            let item = QueueItem { id: QueueItem::id_of(id, &key, sequence), expires_at, value: own(&value) };
            partition.push(item.clone());
            added.push(item);
        }
        added.iter().for_each(|item| self.save(item));
        self.touch_for(id);
        Ok(())
    }

    /// Takes at most so many items from the front of a partition.
    pub fn take_queue(&mut self, id: &str, key: &Bytes, most: usize, now: Now) -> Result<Vec<Bytes>, Error> {
        self.expire_partition(id, key, now)?;
        let queue = self.queue_mut(id)?;
        let Some(partition) = queue.partitions.get_mut(key) else { return Ok(Vec::new()) };
        let taken: Vec<QueueItem> = partition.items.drain(..most.min(partition.items.len())).collect();
        partition.bytes -= taken.iter().map(|item| item.value.len()).sum::<usize>();
        if partition.items.is_empty() {
            queue.partitions.remove(key);
        }
        taken.iter().for_each(|item| self.forget::<QueueItem>(&item.id));
        Ok(taken.into_iter().map(|item| item.value).collect())
    }

    /// Removes the items of a partition, or of all.
    pub fn clear_queue(&mut self, id: &str, key: Option<&Bytes>) -> Result<(), Error> {
        let queue = self.queue_mut(id)?;
        let gone: Vec<Partition> = match key {
            Some(key) => queue.partitions.remove(key).into_iter().collect(),
            None => std::mem::take(&mut queue.partitions).into_values().collect(),
        };
        for item in gone.iter().flat_map(|partition| &partition.items) {
            self.forget::<QueueItem>(&item.id);
        }
        Ok(())
    }

    /// Removes a Queue and its items.
    pub fn delete_queue(&mut self, id: &str) -> Result<(), Error> {
        self.clear_queue(id, None)?;
        self.item_queues.remove(id);
        self.forget::<Queue>(id);
        // Those who wait for an item get an error.
        self.touch();
        Ok(())
    }

    fn expire_partition(&mut self, id: &str, key: &Bytes, now: Now) -> Result<(), Error> {
        if self.queue(id)?.partitions.get(key).is_some_and(|partition| partition.is_expired(now)) {
            self.clear_queue(id, Some(key))?;
        }
        Ok(())
    }

    /// Removes expired partitions, whether or not they are used.
    pub(super) fn expire_queues(&mut self, now: Now) {
        let expired: Vec<(String, Bytes)> = self
            .item_queues
            .values()
            .flat_map(|queue| queue.partitions.iter().map(|(key, partition)| (&queue.id, key, partition)))
            .filter(|(_, _, partition)| partition.is_expired(now))
            .map(|(id, key, _)| (id.clone(), key.clone()))
            .collect();
        for (id, key) in expired {
            if let Err(error) = self.clear_queue(&id, Some(&key)) {
                tracing::warn!(queue.id = id, %error, "an expired partition could not be cleared");
            }
        }
    }
}

/// Checks limits that do not depend on the partition; returns the size of the items.
fn check_items(key: &Bytes, values: &[Bytes]) -> Result<usize, Error> {
    if key.len() > MAX_KEY_BYTES {
        return Err(Error::invalid("partition_key", format!("it has more than {MAX_KEY_BYTES} bytes")));
    }
    if let Some(large) = values.iter().find(|value| value.len() > MAX_ITEM_BYTES) {
        let reason = format!("it has {} bytes, and at most {MAX_ITEM_BYTES} fit; use a Volume for it", large.len());
        return Err(Error::invalid("Queue item", reason));
    }
    let bytes = values.iter().map(Bytes::len).sum();
    if values.len() > MAX_ITEMS || bytes > MAX_PARTITION_BYTES {
        let reason = format!("a partition has room for {MAX_ITEMS} of them, and for {MAX_PARTITION_BYTES} bytes");
        return Err(Error::invalid("Queue items", reason));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::{Change, StoredRow};

    fn restarted(mut state: State, now: Now) -> State {
        let mut rows = BTreeMap::new();
        for change in state.take_changes() {
            let (Change::Put { kind, id, .. } | Change::Delete { kind, id }) = &change;
            let key = ((*kind).to_owned(), id.clone());
            match StoredRow::after(change) {
                Some(row) => drop(rows.insert(key, row)),
                None => drop(rows.remove(&key)),
            }
        }
        State::load(rows.into_values().collect(), now).unwrap()
    }

    #[test]
    fn order_and_expiry_survive_a_restart() {
        let (mut state, now) = (State::default(), Now::read());
        let after =
            |seconds: u64| Now { wall: now.wall + seconds as f64, mono: now.mono + Duration::from_secs(seconds) };
        let request = modal_proto::QueueGetOrCreateRequest {
            deployment_name: "q".into(),
            object_creation_type: modal_proto::ObjectCreationType::CreateIfMissing.into(),
            ..Default::default()
        };
        let id = state.get_or_create_queue(&request, now).unwrap();
        let (key, item) = (Bytes::from_static(b"p"), |n: u8| Bytes::from(vec![n]));
        state.put_queue(&id, key.clone(), vec![item(1), item(2)], 0, after(5)).unwrap();
        // The clock went back. The order is still that of the calls, and the last item decides about the expiry.
        state.put_queue(&id, key.clone(), vec![item(3), item(4)], 60, now).unwrap();
        assert_eq!(state.take_queue(&id, &key, 1, now).unwrap(), [item(1)]);

        let mut state = restarted(state, now);
        let queue = state.queue(&id).unwrap();
        let seen = |sequence: &str| queue.after(&key, sequence, usize::MAX, now);
        assert_eq!(seen("").iter().map(|item| item.value.clone()).collect::<Vec<_>>(), [item(2), item(3), item(4)]);
        assert_eq!(seen(seen("")[1].sequence()).len(), 1);
        assert_eq!((queue.len(None, after(59)), queue.len(None, after(60)), queue.partitions(after(60))), (3, 0, 0));
        let last = seen("")[2].sequence().to_owned();

        state.put_queue(&id, key.clone(), vec![item(5)], 0, after(60)).unwrap();
        let left = state.queue(&id).unwrap().after(&key, &last, usize::MAX, after(61));
        assert_eq!(left.len(), 1, "what expired is gone, and what is new comes after it");
        assert_eq!(state.take_queue(&id, &key, 9, after(61)).unwrap(), [item(5)]);
        state.expire_queues(after(61));
        assert!(state.queue(&id).unwrap().partitions.is_empty());
    }

    #[test]
    fn rejected_put_changes_nothing() {
        let (mut state, now) = (State::default(), Now::read());
        let request = modal_proto::QueueGetOrCreateRequest {
            object_creation_type: modal_proto::ObjectCreationType::Ephemeral.into(),
            ..Default::default()
        };
        let id = state.get_or_create_queue(&request, now).unwrap();
        let mut put = |key: &'static [u8], values: Vec<Bytes>, ttl| {
            state
                .put_queue(&id, Bytes::from_static(key), values, ttl, now)
                .map_err(|error| tonic::Status::from(error).code())
        };
        let large = Bytes::from(vec![0; MAX_ITEM_BYTES]);
        put(b"", vec![large.clone(); 63], 0).unwrap();
        assert_eq!(put(b"", vec![large.clone(); 2], 0), Err(tonic::Code::ResourceExhausted));
        put(b"", vec![large.clone()], 0).unwrap();
        assert_eq!(put(b"other", vec![large; 65], 0), Err(tonic::Code::InvalidArgument));
        assert_eq!(put(b"other", vec![Bytes::new()], -1), Err(tonic::Code::InvalidArgument));
        assert_eq!(put(&[b'k'; 65], vec![Bytes::new()], 0), Err(tonic::Code::InvalidArgument));
        assert_eq!((state.queue(&id).unwrap().len(None, now), state.queue(&id).unwrap().partitions(now)), (64, 1));
    }
}
