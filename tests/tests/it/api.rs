//! A plain HTTP client of the daemon's socket.

use integration_tests::{Installation, text};
use reqwest::{Client, Method, Response};
use serde_json::Value;

pub struct Api {
    pub http: Client,
}

impl Api {
    pub fn new(it: &Installation) -> Self {
        Self { http: Client::builder().unix_socket(it.socket()).pool_max_idle_per_host(0).build().expect("a client") }
    }

    pub async fn send(&self, method: Method, path: &str, body: Option<&str>) -> Response {
        let request = self.http.request(method, format!("http://localhost{path}"));
        let request = match body {
            Some(body) => request.header("content-type", "application/json").body(body.to_owned()),
            None => request,
        };
        request.send().await.expect("an answer")
    }

    /// A refusal: the status, and the problem's kind.
    pub async fn problem(&self, method: Method, path: &str, body: Option<&str>) -> (u16, String) {
        let response = self.send(method, path, body).await;
        let status = response.status().as_u16();
        assert_eq!(response.headers()["content-type"], "application/problem+json", "{path}");
        let problem: Value = response.json().await.expect("JSON");
        assert_eq!(problem["status"], status);
        for member in ["title", "detail"] {
            assert!(!text(&problem[member]).is_empty(), "{path} has no {member}");
        }
        let kind = text(&problem["type"]).strip_prefix("urn:airflow-serverless:problem:").expect("a known namespace");
        (status, kind.to_owned())
    }

    /// An answer as JSON.
    pub async fn json(&self, method: Method, path: &str, body: Option<&str>) -> Value {
        self.send(method, path, body).await.json().await.expect("JSON")
    }

    /// The events behind one, up to the first of that kind.
    pub async fn events(&self, after: &str, last: &str) -> Vec<Value> {
        let request = self.http.get("http://localhost/v1/events").header("last-event-id", after);
        let mut response = request.send().await.expect("an answer");
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let (mut events, mut read) = (Vec::<Value>::new(), String::new());
        while events.last().is_none_or(|event| event["type"] != last) {
            let chunk = response.chunk().await.expect("a stream that goes on").expect("a stream that goes on");
            read.push_str(std::str::from_utf8(&chunk).expect("text"));
            while let Some((line, rest)) = read.split_once('\n') {
                let event = line.strip_prefix("data: ").map(|data| serde_json::from_str(data).expect("JSON"));
                events.extend(event);
                read = rest.to_owned();
            }
        }
        events
    }
}
