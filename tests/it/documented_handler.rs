//! The recipe of `docs/recipes/webhook.md`, with the real Next.js, Clerk's library and Prisma: the
//! webhook handler that an application has already follows the mirror, and misses nothing.

use rustix::process::Signal;

use crate::support::{
    delivery::Delivering,
    fixture::Fixture,
    pages::{code_blocks, page},
    process::Process,
    receiver::SECRET,
    summary::Exit,
    wait::eventually,
    webhook_app::WebhookApp,
};

/// What the daemon is given beside its configuration: the secret that the application has, too.
const SIGNING_SECRET: (&str, &str) = ("CLERK_WEBHOOK_SIGNING_SECRET", SECRET);

/// Where a user's first name stands in the mirror and in the application's table. The user's id
/// follows.
const IN_MIRROR: &str = "SELECT coalesce(first_name, '') FROM clerk.users WHERE id = ";
const IN_TABLE: &str = r#"SELECT coalesce("firstName", '') FROM "User" WHERE "clerkId" = "#;

/// The application with its page, and a daemon that delivers to it.
struct WebhookRecipe {
    app: WebhookApp,
    delivering: Delivering,
    daemon: Process,
}

impl WebhookRecipe {
    /// Follows the page, for an empty table; `None` if the application cannot be installed here.
    async fn follow(users: usize) -> Option<Self> {
        let page = page("docs/recipes/webhook.md");
        let fixture = Fixture::new(users).await;
        let mut app = WebhookApp::build(&fixture).await?;
        let [route] = code_blocks(&page, "ts")[..] else {
            panic!("the page has other code than the route")
        };
        app.assert_shows("app/api/webhooks/clerk/route.ts", route);
        let [development, production] = code_blocks(&page, "toml")[..] else {
            panic!("the page has other configurations")
        };
        assert!(
            production.contains("http://app:3000/api/webhooks/clerk"),
            "{production}"
        );
        assert!(page.contains("`start = \"everything\"`"));
        let everything = format!("{}start = \"everything\"\n", app.replace_port(development));
        app.start(&fixture).await;
        let delivering = Delivering::with(fixture, &everything);
        assert_checked(&delivering).await;
        let daemon = delivering.spawn(&[SIGNING_SECRET]);
        Some(Self {
            app,
            delivering,
            daemon,
        })
    }

    fn fixture(&self) -> &Fixture {
        &self.delivering.fixture
    }

    /// Waits until a user has this first name in a place; `None` stands for no row.
    async fn wait_for_name(&self, place: &str, id: &str, name: Option<&str>) {
        let sql = format!("{place}'{id}'");
        eventually(&format!("{id} is {name:?}"), async || {
            self.fixture().db.text(&sql).await.as_deref() == name
        })
        .await;
    }

    /// Counts the rows of the application's table.
    async fn rows(&self) -> i64 {
        self.fixture().db.number(r#"SELECT count(*) FROM "User""#).await
    }

    /// Waits until the application has accepted everything, and asserts that its table equals the
    /// mirror, and the mirror Clerk.
    async fn assert_follows(&self) {
        self.delivering.wait_until_delivered("app").await;
        let users = "SELECT id, primary_email, first_name, last_name FROM clerk.users";
        let rows = r#"SELECT "clerkId", email, "firstName", "lastName" FROM "User""#;
        let differing = format!("SELECT count(*) FROM (({users} EXCEPT {rows}) UNION ALL ({rows} EXCEPT {users})) d");
        assert_eq!(self.fixture().db.number(&differing).await, 0);
        assert_eq!(self.rows().await, self.fixture().users().await);
        self.fixture().assert_in_sync().await;
    }

    /// Somebody signs up, changes and goes.
    async fn a_user_comes_and_goes(&self) {
        let (fixture, sim) = (self.fixture(), &self.fixture().sim);
        let id = sim.create_random();
        fixture.rename(&id, "Ada");
        self.wait_for_name(IN_TABLE, &id, Some("Ada")).await;
        fixture.rename(&id, "Grace");
        self.wait_for_name(IN_TABLE, &id, Some("Grace")).await;
        fixture.age_rows().await;
        assert!(sim.delete(&id));
        self.wait_for_name(IN_TABLE, &id, None).await;
    }

    /// Users change while the application is stopped.
    async fn the_handler_is_stopped(&mut self) {
        self.app.stop().await;
        let (fixture, sim) = (self.fixture(), &self.fixture().sim);
        let ids = sim.user_ids();
        let (gone, changed) = (&ids[..3], &ids[3]);
        let new = sim.create_random();
        fixture.rename(&new, "Ada");
        fixture.rename(changed, "Grace");
        gone.iter().for_each(|id| assert!(sim.delete(id)));
        for id in gone {
            self.wait_for_name(IN_MIRROR, id, None).await;
        }
        for (id, name) in [(&new, "Ada"), (changed, "Grace")] {
            self.wait_for_name(IN_MIRROR, id, Some(name)).await;
        }
        fixture.rename(changed, "Grace again");
        self.wait_for_name(IN_MIRROR, changed, Some("Grace again")).await;
        self.daemon.wait_for_log("the endpoint is paused").await;
        self.app.start(&self.delivering.fixture).await;
        self.wait_for_name(IN_TABLE, changed, Some("Grace again")).await;
    }

    /// The handler fails because its table cannot be used for a while.
    async fn the_handler_fails(&self) {
        let (fixture, db) = (self.fixture(), &self.fixture().db);
        let id = fixture.sim.create_random();
        fixture.rename(&id, "Ada");
        self.wait_for_name(IN_TABLE, &id, Some("Ada")).await;
        db.execute(r#"ALTER TABLE "User" RENAME TO "Away""#).await;
        fixture.rename(&id, "Grace");
        let refused = format!(
            "SELECT count(*) FROM clerk.deliveries WHERE object_id = '{id}' AND last_status = 500 AND dead_at IS NULL"
        );
        eventually("the handler refuses the event", async || db.number(&refused).await == 1).await;
        db.execute(r#"ALTER TABLE "Away" RENAME TO "User""#).await;
        self.wait_for_name(IN_TABLE, &id, Some("Grace")).await;
    }
}

/// Asserts that `check` finds the handler, and has nothing against it.
async fn assert_checked(delivering: &Delivering) {
    let config = delivering.config();
    let arguments = ["--config", config.to_str().unwrap(), "check", "--format", "json"];
    let checked = delivering.fixture.run_with(&arguments, &[SIGNING_SECRET]).await;
    checked.assert_exit(Exit::Ok);
    let checked = checked.json();
    let mut checks = checked["checks"].as_array().unwrap().iter();
    let endpoint = checks.find(|check| check["name"] == "endpoint").expect("no endpoint");
    assert_eq!(endpoint["status"], "ok", "{endpoint}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_handler_of_clerks_documentation_follows_and_misses_nothing() {
    let Some(mut recipe) = WebhookRecipe::follow(40).await else {
        return;
    };
    eventually("the empty table is filled", async || recipe.rows().await == 40).await;
    recipe.assert_follows().await;
    recipe.fixture().age_rows().await;
    recipe.a_user_comes_and_goes().await;
    recipe.assert_follows().await;
    recipe.the_handler_is_stopped().await;
    recipe.assert_follows().await;
    recipe.the_handler_fails().await;
    recipe.assert_follows().await;
    recipe.daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}
