//! Reading and encoding on threads of their own, ahead of the trainer.
//!
//! ```text
//! reader of a lane --batches of documents--> workers
//!        \--tickets, in order--> the lane's queue --> whoever asks waits for the ticket's batch
//! ```
//!
//! Queues are bounded, and tickets keep the order of the documents whatever the number of workers. The threads end when
//! the pipeline is dropped.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use super::DataError;
use super::encoder::{Encoded, Encoder};
use super::reader::{Content, Document, Lane, Position, Reader};

/// Text that a batch holds before it is passed on, in bytes.
const BATCH: usize = 64 << 10;
/// Documents of a batch, at most.
const DOCUMENTS: usize = 256;

type Batch<T> = Vec<Result<T, DataError>>;

struct Job {
    documents: Batch<Document>,
    reply: SyncSender<Batch<Encoded>>,
}

enum Ticket {
    Batch(Receiver<Batch<Encoded>>),
    End,
}

/// The lanes of a corpus, being read.
pub(super) struct Pipeline {
    lanes: Vec<Queue>,
}

struct Queue {
    tickets: Receiver<Ticket>,
    batch: std::vec::IntoIter<Result<Encoded, DataError>>,
    ended: bool,
}

impl Pipeline {
    /// Begins to read each lane from its position on.
    pub fn start(lanes: &[Lane], positions: &[Position], encoder: Encoder, workers: usize) -> Result<Self, DataError> {
        let workers = workers.max(1);
        let (jobs, queue) = sync_channel::<Job>(workers);
        let (queue, encoder) = (Arc::new(Mutex::new(queue)), Arc::new(encoder));
        for _ in 0..workers {
            let (queue, encoder) = (queue.clone(), encoder.clone());
            spawn("encode", move || work(&queue, &encoder))?;
        }
        let lanes = lanes.iter().zip(positions).map(|(lane, &position)| {
            let (tickets, queue) = sync_channel(2 * workers);
            let (reader, jobs) = (Reader::new(lane.clone(), position), jobs.clone());
            spawn("read", move || read(reader, &jobs, &tickets))?;
            Ok(Queue { tickets: queue, batch: Vec::new().into_iter(), ended: false })
        });
        Ok(Self { lanes: lanes.collect::<Result<_, DataError>>()? })
    }

    /// The next document of a lane, or `None` at its end and whenever asked again.
    pub fn next(&mut self, lane: usize) -> Result<Option<Encoded>, DataError> {
        let lost = |_| DataError::Worker { reason: "a thread that reads it ended in the middle".to_owned() };
        let Queue { tickets, batch, ended } = &mut self.lanes[lane];
        loop {
            if let Some(encoded) = batch.next() {
                return encoded.map(Some);
            }
            if *ended {
                return Ok(None);
            }
            match tickets.recv().map_err(lost)? {
                Ticket::Batch(reply) => *batch = reply.recv().map_err(lost)?.into_iter(),
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
fn read(mut reader: Reader, jobs: &SyncSender<Job>, tickets: &SyncSender<Ticket>) {
    loop {
        let (mut documents, mut bytes) = (Vec::new(), 0);
        while bytes < BATCH && documents.len() < DOCUMENTS {
            let Some(document) = reader.next() else { break };
            if let Ok(Document { content: Content::Text(text), .. }) = &document {
                bytes += text.len();
            }
            documents.push(document);
        }
        if documents.is_empty() {
            // Whoever dropped the queue does not need to hear of the end.
            let _ = tickets.send(Ticket::End);
            return;
        }
        let (reply, batch) = sync_channel(1);
        if tickets.send(Ticket::Batch(batch)).is_err() || jobs.send(Job { documents, reply }).is_err() {
            return;
        }
    }
}

/// Ends when no reader is left.
fn work(queue: &Mutex<Receiver<Job>>, encoder: &Encoder) {
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { documents, reply }) = job else { return };
        let encoded = documents.into_iter().map(|document| document.map(|document| encoder.encode(document)));
        // The ticket may have been dropped with its pipeline.
        let _ = reply.send(encoded.collect());
    }
}
