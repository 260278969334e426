//! A database role with few rights.

use crate::support::{database::with_database, fixture::Fixture, program::ProgramOutput};

/// A role that may connect, and a URL that uses it. Roles are global to a server, so the name
/// contains the database's.
pub struct Role {
    pub name: String,
    pub url: String,
}

impl Role {
    pub async fn new(fixture: &Fixture) -> Self {
        let database = fixture.db.text("SELECT current_database()").await.unwrap();
        let name = format!("{database}_role");
        fixture
            .db
            .execute(&format!("CREATE ROLE {name} LOGIN PASSWORD 'hidden'"))
            .await;
        let (scheme, rest) = fixture.db.url.split_once("://").unwrap();
        let place = rest.rsplit_once('@').map_or(rest, |(_, place)| place);
        let url = with_database(&format!("{scheme}://{name}:hidden@{place}"), &database);
        Self { name, url }
    }

    pub async fn run(&self, fixture: &Fixture, arguments: &[&str]) -> ProgramOutput {
        fixture.run_with(arguments, &[("DATABASE_URL", &self.url)]).await
    }

    pub async fn end(self, fixture: &Fixture) {
        let name = self.name;
        fixture
            .db
            .execute(&format!("DROP OWNED BY {name} CASCADE; DROP ROLE {name}"))
            .await;
    }
}
