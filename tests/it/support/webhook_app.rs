//! The application of `examples/nextjs-webhook`: its route is the webhook handler of Clerk's
//! documentation, and keeps a table of users.

use std::net::TcpListener;

use crate::support::{
    fixture::Fixture, http_client::send, node_app::NodeApp, postgres::any_port, process::Process, receiver::SECRET,
    wait::eventually,
};

/// Where the route is.
const PATH: &str = "/api/webhooks/clerk";

/// The application's environment. The publishable key is that of no instance.
const ENVIRONMENT: [(&str, &str); 3] = [
    (
        "NEXT_PUBLIC_CLERK_PUBLISHABLE_KEY",
        "pk_test_ZXhhbXBsZS5jbGVyay5hY2NvdW50cy5kZXYk",
    ),
    ("NEXT_PUBLIC_CLERK_TELEMETRY_DISABLED", "1"),
    ("CLERK_WEBHOOK_SIGNING_SECRET", SECRET),
];

/// The application, which a test starts and stops.
pub struct WebhookApp {
    app: NodeApp,
    port: u16,
    server: Option<Process>,
}

impl WebhookApp {
    /// Installs and builds the application, and creates its table; `None` if it cannot be installed
    /// here.
    pub async fn build(fixture: &Fixture) -> Option<Self> {
        let app = NodeApp::install("nextjs-webhook").await?;
        let variables = ENVIRONMENT.map(|(name, value)| format!("{name}={value}\n"));
        app.write(".env.local", &variables.concat());
        for script in ["generate", "build"] {
            app.succeed(fixture, script, &[], "").await;
        }
        let migration = app.read("prisma/migrations/20260301090000_init/migration.sql");
        fixture.db.execute(&migration).await;
        Some(Self {
            app,
            port: free_port(),
            server: None,
        })
    }

    /// Asserts that a piece of code stands in a file of the application.
    #[track_caller]
    pub fn assert_shows(&self, file: &str, code: &str) {
        let file = self.app.read(file);
        assert!(file.contains(code), "{code}\n\nis not in\n\n{file}");
    }

    /// Returns a configuration of the documentation with the application's port.
    pub fn replace_port(&self, configuration: &str) -> String {
        let of_page = format!("http://localhost:3000{PATH}");
        assert!(configuration.contains(&of_page), "{configuration}");
        configuration.replace(&of_page, &format!("http://localhost:{}{PATH}", self.port))
    }

    /// Starts the application, waits until its route answers, and asserts that it refuses a request
    /// without a signature.
    pub async fn start(&mut self, fixture: &Fixture) {
        let mut command = self.app.node(fixture, "next/dist/bin/next");
        command.args(["start", "--hostname", "localhost", "--port", &self.port.to_string()]);
        let mut server = Process::spawn(command);
        let mut answer = None;
        eventually("the application answers", async || {
            assert!(!server.has_ended(), "{}", server.log());
            answer = self.post_unsigned().await;
            answer.is_some()
        })
        .await;
        assert_eq!(answer, Some(400), "{}", server.log());
        self.server = Some(server);
    }

    /// Kills the application.
    pub async fn stop(&mut self) {
        self.server.take().expect("it does not run").kill().await;
        assert_eq!(self.post_unsigned().await, None);
    }

    /// Sends an event without a signature, and returns the status of the answer; `None` if nobody
    /// listens.
    async fn post_unsigned(&self) -> Option<u16> {
        let address = format!("localhost:{}", self.port);
        let head = format!("POST {PATH} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: 2\r\n\r\n");
        send(&address, &(head + "{}")).await.map(|answer| answer.status)
    }
}

/// Returns a port that no program has, and that the system gives to no client while the application
/// is stopped.
fn free_port() -> u16 {
    let ports = std::iter::repeat_with(any_port);
    let is_free = |port: &u16| TcpListener::bind(("localhost", *port)).is_ok();
    ports.take(100).find(is_free).expect("no port is free")
}
