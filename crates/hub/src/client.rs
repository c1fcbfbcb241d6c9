//! Requests, and what an answer's status means.

use std::io;
use std::thread;
use std::time::Duration;

use ureq::config::RedirectAuthHeaders;
use ureq::http::{HeaderMap, Response, StatusCode};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body};

use crate::HubError;
use crate::event::{Event, OnEvent};
use crate::settings::{Patience, Settings};

/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(30);
/// Most steps from an address to the one that has the answer.
const REDIRECTS: usize = 10;

/// Sends requests; the token goes to the hub and to nobody else.
pub(crate) struct Client<'a> {
    agent: Agent,
    settings: &'a Settings,
}

impl<'a> Client<'a> {
    /// # Errors
    /// If the file of certificates cannot be read.
    pub(crate) fn new(settings: &'a Settings) -> Result<Self, HubError> {
        let silence = Some(settings.patience.silence);
        let builder = Agent::config_builder()
            .user_agent(concat!("openelm/", env!("CARGO_PKG_VERSION")))
            // Lengths and hashes are those of the file itself.
            .accept_encoding("identity")
            .http_status_as_error(false)
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .timeout_resolve(Some(CONNECT))
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(silence)
            .timeout_per_read(silence);
        Ok(Self { agent: builder.tls_config(tls(settings)?).build().new_agent(), settings })
    }

    /// How long to bear with a server.
    pub(crate) fn patience(&self) -> Patience {
        self.settings.patience
    }

    /// Asks for `url`, wherever that leads.
    pub(crate) fn get(&self, url: &str, headers: &[(&str, &str)]) -> Result<Response<Body>, HubError> {
        let mut request = self.agent.get(url).config().https_only(url.starts_with("https:")).build();
        for (name, value) in
            headers.iter().copied().chain(self.authorization(url).as_ref().map(|(n, v)| (*n, v.as_str())))
        {
            request = request.header(name, value);
        }
        request.call().map_err(|e| failure(url, e))
    }

    /// The header lines of `url`, those of the hub itself: what it says of a file is lost behind a redirect to where the
    /// bytes are. Redirects within the hub, to a new name, are followed.
    pub(crate) fn head(&self, url: &str) -> Result<HeaderMap, HubError> {
        let mut url = url.to_owned();
        for _ in 0..REDIRECTS {
            let mut request = self.agent.head(&url).config().max_redirects(0).build();
            if let Some((name, value)) = self.authorization(&url) {
                request = request.header(name, value);
            }
            let response = request.call().map_err(|e| failure(&url, e))?;
            let location = response.headers().get("location").and_then(|location| location.to_str().ok());
            match location {
                Some(path)
                    if response.status().is_redirection() && path.starts_with('/') && !path.starts_with("//") =>
                {
                    url = format!("{}{path}", origin(&url));
                }
                _ if response.status().is_success() || response.status().is_redirection() => {
                    return Ok(response.headers().clone());
                }
                _ => return Err(self.refusal(&url, &response)),
            }
        }
        Err(HubError::Answer { url, reason: "it leads from one address to the next without end".to_owned() })
    }

    fn authorization(&self, url: &str) -> Option<(&'static str, String)> {
        let token = self.settings.token.as_ref()?;
        self.is_hub(url).then(|| ("authorization", format!("Bearer {token}")))
    }

    fn is_hub(&self, url: &str) -> bool {
        url.strip_prefix(&self.settings.endpoint).is_some_and(|path| path.starts_with('/'))
    }

    /// The error that an answer without what was asked for means.
    pub(crate) fn refusal<T>(&self, url: &str, response: &Response<T>) -> HubError {
        let url = url.to_owned();
        let status = response.status().as_u16();
        let code = response.headers().get("x-error-code").and_then(|code| code.to_str().ok());
        match response.status() {
            StatusCode::NOT_FOUND | StatusCode::GONE => HubError::NotFound { url },
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let advice = match (self.is_hub(&url), code, &self.settings.token) {
                    (false, ..) => "check the name",
                    (_, Some("GatedRepo"), None) => {
                        "accept the model's terms on its page, then set HF_TOKEN or log in with `hf auth login`"
                    }
                    (_, _, None) => "check the name; for a private model set HF_TOKEN or log in with `hf auth login`",
                    (_, _, Some(_)) => {
                        "the token does not open it: accept the model's terms on its page, or use another token"
                    }
                };
                HubError::Refused { url, status, advice }
            }
            _ => HubError::Status { url, status },
        }
    }
}

fn tls(settings: &Settings) -> Result<TlsConfig, HubError> {
    let Some(path) = &settings.certificates else {
        return Ok(TlsConfig::default());
    };
    let text = std::fs::read(path).map_err(HubError::io(path))?;
    let certificates = parse_pem(&text).filter_map(|item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    });
    let certificates: Vec<_> = certificates.collect();
    if certificates.is_empty() {
        let none = io::Error::new(io::ErrorKind::InvalidData, "there are no certificates in it");
        return Err(HubError::io(path)(none));
    }
    Ok(TlsConfig::builder().root_certs(RootCerts::new_with_certs(&certificates)).build())
}

/// Scheme and host of an address.
fn origin(url: &str) -> &str {
    let host = url.find("://").map_or(0, |scheme| scheme + 3);
    url[host..].find('/').map_or(url, |end| &url[..host + end])
}

fn failure(url: &str, error: ureq::Error) -> HubError {
    let url = url.to_owned();
    let reason = error.to_string();
    match error {
        ureq::Error::Io(_) | ureq::Error::Timeout(_) | ureq::Error::HostNotFound | ureq::Error::ConnectionFailed => {
            HubError::Connection { url, reason }
        }
        _ => HubError::Answer { url, reason },
    }
}

/// Attempts that are left.
pub(crate) struct Attempts {
    left: u32,
    pause: Duration,
}

impl Attempts {
    pub(crate) fn new(patience: Patience) -> Self {
        Self { left: patience.retries, pause: patience.pause }
    }

    /// Waits for the next attempt after `error`, or gives it back if it will not pass or no attempt is left.
    pub(crate) fn again(&mut self, error: HubError, on_event: &mut OnEvent) -> Result<(), HubError> {
        if !error.may_pass() || self.left == 0 {
            return Err(error);
        }
        on_event(Event::Retrying { reason: &error.to_string() });
        thread::sleep(self.pause);
        self.left -= 1;
        self.pause *= 2;
        Ok(())
    }
}

/// Repeats what may fail for a while.
pub(crate) fn patiently<T>(
    patience: Patience,
    on_event: &mut OnEvent,
    mut attempt: impl FnMut() -> Result<T, HubError>,
) -> Result<T, HubError> {
    let mut attempts = Attempts::new(patience);
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(e) => attempts.again(e, on_event)?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::origin;

    #[test]
    fn the_origin_is_scheme_and_host() {
        assert_eq!(origin("http://a:1/b/c"), "http://a:1");
        assert_eq!(origin("https://a"), "https://a");
    }
}
