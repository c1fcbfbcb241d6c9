//! Reading and encoding on threads of their own, ahead of the trainer.
//!
//! ```text
//! reader of a lane --bundles of documents--> workers
//!        \--tickets, in order--> the lane's queue --> whoever asks waits for the ticket's bundle
//! ```
//!
//! Queues are bounded, and tickets keep the order of the documents whatever the number of workers. The threads end when
//! the pipeline is dropped.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use super::DataError;
use super::encoder::{Encoded, Encoder};
use super::reader::{Body, Document, Lane, Position, Reader};

/// Text that a bundle holds before it is passed on, in bytes.
const BUNDLE: usize = 64 << 10;
/// Documents of a bundle, at most.
const DOCUMENTS: usize = 256;

type Bundle<T> = Vec<Result<T, DataError>>;

struct Task {
    documents: Bundle<Document>,
    reply: SyncSender<Bundle<Encoded>>,
}

enum Ticket {
    Bundle(Receiver<Bundle<Encoded>>),
    End,
}

/// The lanes of a corpus, being read.
pub(super) struct Pipeline {
    lanes: Vec<Queue>,
}

struct Queue {
    tickets: Receiver<Ticket>,
    bundle: std::vec::IntoIter<Result<Encoded, DataError>>,
    ended: bool,
}

impl Pipeline {
    /// Begins to read each lane from its position on.
    pub fn start(lanes: &[Lane], positions: &[Position], encoder: Encoder, workers: usize) -> Result<Self, DataError> {
        let workers = workers.max(1);
        let (tasks, queue) = sync_channel::<Task>(workers);
        let (queue, encoder) = (Arc::new(Mutex::new(queue)), Arc::new(encoder));
        for _ in 0..workers {
            let (queue, encoder) = (queue.clone(), encoder.clone());
            spawn("encode", move || work(&queue, &encoder))?;
        }
        let lanes = lanes.iter().zip(positions).map(|(lane, &position)| {
            let (tickets, queue) = sync_channel(2 * workers);
            let (reader, tasks) = (Reader::new(lane.clone(), position), tasks.clone());
            spawn("read", move || read(reader, &tasks, &tickets))?;
            Ok(Queue { tickets: queue, bundle: Vec::new().into_iter(), ended: false })
        });
        Ok(Self { lanes: lanes.collect::<Result<_, DataError>>()? })
    }

    /// The next document of a lane, or `None` at its end and whenever asked again.
    pub fn next(&mut self, lane: usize) -> Result<Option<Encoded>, DataError> {
        let lost = |_| DataError::Worker { reason: "a thread that reads it ended in the middle".to_owned() };
        let Queue { tickets, bundle, ended } = &mut self.lanes[lane];
        loop {
            if let Some(encoded) = bundle.next() {
                return encoded.map(Some);
            }
            if *ended {
                return Ok(None);
            }
            match tickets.recv().map_err(lost)? {
                Ticket::Bundle(reply) => *bundle = reply.recv().map_err(lost)?.into_iter(),
                Ticket::End => *ended = true,
            }
        }
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), DataError> {
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(body);
    spawned.map(drop).map_err(|e| DataError::Worker { reason: format!("no thread can be started: {e}") })
}

/// Ends when nobody waits for the tickets any more.
fn read(mut reader: Reader, tasks: &SyncSender<Task>, tickets: &SyncSender<Ticket>) {
    loop {
        let (mut documents, mut bytes) = (Vec::new(), 0);
        while bytes < BUNDLE && documents.len() < DOCUMENTS {
            let Some(document) = reader.next() else { break };
            if let Ok(Document { body: Body::Text(text), .. }) = &document {
                bytes += text.len();
            }
            documents.push(document);
        }
        if documents.is_empty() {
            // Whoever dropped the queue does not need to hear of the end.
            let _ = tickets.send(Ticket::End);
            return;
        }
        let (reply, bundle) = sync_channel(1);
        if tickets.send(Ticket::Bundle(bundle)).is_err() || tasks.send(Task { documents, reply }).is_err() {
            return;
        }
    }
}

/// Ends when no reader is left.
fn work(queue: &Mutex<Receiver<Task>>, encoder: &Encoder) {
    loop {
        let task = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Task { documents, reply }) = task else { return };
        let encoded = documents.into_iter().map(|document| document.map(|document| encoder.encode(document)));
        // The ticket may have been dropped with its pipeline.
        let _ = reply.send(encoded.collect());
    }
}
