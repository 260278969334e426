//! A database role with few rights.

use crate::support::{database::with_database, fixture::World, program::ProgramOutput};

/// A role that may connect, and a URL that uses it. Roles are global to a server, so the name
/// contains the database's.
pub struct Role {
    pub name: String,
    pub url: String,
}

impl Role {
    pub async fn new(world: &World) -> Self {
        let database = world.db.text("SELECT current_database()").await.unwrap();
        let name = format!("{database}_role");
        world
            .db
            .execute(&format!("CREATE ROLE {name} LOGIN PASSWORD 'hidden'"))
            .await;
        let (scheme, rest) = world.db.url.split_once("://").unwrap();
        let place = rest.rsplit_once('@').map_or(rest, |(_, place)| place);
        let url = with_database(&format!("{scheme}://{name}:hidden@{place}"), &database);
        Self { name, url }
    }

    pub async fn run(&self, world: &World, arguments: &[&str]) -> ProgramOutput {
        world.run_with(arguments, &[("DATABASE_URL", &self.url)]).await
    }

    pub async fn end(self, world: &World) {
        let name = self.name;
        world
            .db
            .execute(&format!("DROP OWNED BY {name} CASCADE; DROP ROLE {name}"))
            .await;
    }
}
