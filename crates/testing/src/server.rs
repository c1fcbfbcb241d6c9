//! A server of one's own, for tests of downloads: it answers as it is told, and can lie, hang up and dawdle.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// What a client asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// `GET` or `HEAD`.
    pub method: String,
    /// Path with query.
    pub path: String,
    headers: Vec<(String, String)>,
}

impl Request {
    /// The value of a header line; `name` in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn read(stream: &TcpStream) -> Option<Self> {
        let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
        let first = lines.next()?;
        let mut words = first.split(' ');
        let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
        let headers = lines.take_while(|line| !line.is_empty()).filter_map(|line| {
            line.split_once(':').map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
        });
        Some(Self { method, path, headers: headers.collect() })
    }
}

/// A part of an answer. Behind the last one the server hangs up.
#[derive(Debug, Clone)]
pub enum Step {
    /// Bytes as they go over the wire.
    Send(Vec<u8>),
    /// Silence.
    Pause(Duration),
}

/// A server on a port of its own, for as long as this lives.
pub struct Server {
    port: u16,
    requests: Arc<Mutex<Vec<Request>>>,
    stopped: Arc<AtomicBool>,
}

impl Server {
    /// Starts a server that answers each request by itself.
    ///
    /// # Panics
    /// If there is no free port.
    pub fn start(answer: impl Fn(&Request) -> Vec<Step> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap_or_else(|e| panic!("no port: {e}"));
        let port = listener.local_addr().map_or(0, |address| address.port());
        let (requests, stopped) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let server = Self { port, requests: requests.clone(), stopped: stopped.clone() };
        let answer = Arc::new(answer);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok).take_while(|_| !stopped.load(Ordering::SeqCst)) {
                let (requests, answer) = (requests.clone(), answer.clone());
                thread::spawn(move || {
                    if let Some(request) = Request::read(&stream) {
                        requests.lock().unwrap_or_else(PoisonError::into_inner).push(request.clone());
                        send(stream, answer(&request));
                    }
                });
            }
        });
        server
    }

    /// Its address, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The requests since the last call.
    pub fn requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.requests.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        // Wakes the listener.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn send(mut stream: TcpStream, steps: Vec<Step>) {
    for step in steps {
        match step {
            Step::Pause(time) => thread::sleep(time),
            // A client that has seen enough is no failure of the test.
            Step::Send(bytes) if stream.write_all(&bytes).is_err() => return,
            Step::Send(_) => {}
        }
    }
}

/// Header lines of an answer, with those given, and the empty line behind them.
pub fn head(status: u16, headers: &[(&str, &str)]) -> Step {
    let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    Step::Send(format!("HTTP/1.1 {status} So\r\nConnection: close\r\n{lines}\r\n").into_bytes())
}

/// An honest answer with a body.
pub fn reply(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Vec<Step> {
    let length = body.len().to_string();
    let headers = [headers, &[("Content-Length", length.as_str())]].concat();
    vec![head(status, &headers), Step::Send(body.to_owned())]
}

/// An honest answer with `content` in the state `tag`: all of it or, if asked for, from a byte on, to another.
pub fn file(request: &Request, content: &[u8], tag: &str) -> Vec<Step> {
    let etag = format!("\"{tag}\"");
    let state = [("ETag", etag.as_str()), ("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")];
    let same = request.header("if-range").is_none_or(|wanted| wanted == etag);
    let range =
        request.header("range").filter(|_| same).and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
    let number = |text: &str| text.parse().unwrap_or(usize::MAX);
    let mut steps = match range.map(|(start, last)| (number(start), number(last).min(content.len().saturating_sub(1))))
    {
        None => reply(200, &state, content),
        Some((start, last)) if (start..content.len()).contains(&last) => {
            let range = format!("bytes {start}-{last}/{}", content.len());
            reply(206, &[&state[..], &[("Content-Range", &range)]].concat(), &content[start..=last])
        }
        Some(_) => reply(416, &[], b""),
    };
    if request.method == "HEAD" {
        steps.truncate(1);
    }
    steps
}

/// `answer`, but the server hangs up after `bytes` of the body.
pub fn cut(mut answer: Vec<Step>, bytes: usize) -> Vec<Step> {
    if let Some(Step::Send(body)) = answer.get_mut(1) {
        body.truncate(bytes);
    }
    answer
}
