//! The application's own tables are kept in sync from the mirror.

use crate::support::{app_table::AppTable, summary::Exit};

const PRISMA: &str = r#"
    CREATE TYPE "Role" AS ENUM ('USER', 'ADMIN');
    CREATE TABLE "User" (
        id text PRIMARY KEY,
        "clerkId" text UNIQUE NOT NULL,
        email text NOT NULL,
        name varchar(64) NOT NULL,
        role "Role" NOT NULL,
        "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
        "updatedAt" timestamp(3) NOT NULL
    );"#;

const MAPPING: &str = r#"
    [[tables]]
    name = "User"
    key = "clerkId"
    [tables.set]
    email = "coalesce(u.primary_email, '')"
    name = "coalesce(u.full_name, u.username, '')"
    [tables.insert]
    id = "clerk.cuid()"
    role = "'USER'"
    [tables.touch]
    updatedAt = "now()"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn users_land_in_the_table_and_follow() {
    let app = AppTable::new(20, PRISMA, MAPPING).await;
    app.once().await.assert_exit(Exit::Ok);
    let db = &app.fixture.db;
    let differ = r#"SELECT count(*) FROM clerk.users u FULL JOIN "User" t ON t."clerkId" = u.id
        WHERE t.email IS DISTINCT FROM coalesce(u.primary_email, '') OR t.name IS DISTINCT FROM coalesce(u.full_name, u.username, '')"#;
    assert_eq!(
        db.number(r#"SELECT count(*) FROM "User" WHERE role = 'USER'"#).await,
        20
    );
    assert_eq!(db.number(differ).await, 0);

    let versions = r#"SELECT string_agg(xmin::text, ',' ORDER BY id) FROM "User""#;
    let before = db.text(versions).await;
    app.once().await.assert_exit(Exit::Ok);
    assert_eq!(db.text(versions).await, before, "an unchanged sync writes nothing");

    let ids = app.fixture.sim.user_ids();
    app.fixture.rename(&ids[0], "Ada");
    app.fixture.age_rows().await;
    app.fixture.sim.delete(&ids[1]);
    let ran = app.once().await;
    ran.assert_exit(Exit::Ok);
    assert_eq!(db.number(differ).await, 0);
    assert_eq!(db.number(r#"SELECT count(*) FROM "User""#).await, 19);
}
