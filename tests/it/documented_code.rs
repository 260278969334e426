//! The code of the documentation that no other test runs: SQL, configurations, JSON and commands.

use std::{collections::BTreeSet, fs};

use serde_json::Value;

use crate::{
    console_blocks::{Scene, scenes},
    support::{
        pages::{code_blocks, page, pages},
        roles::Role,
        summary::Exit,
    },
};

/// Pages whose SQL other tests run, as roles with few rights and for a certain user.
const SQL_ELSEWHERE: [&str; 2] = ["docs/permissions.md", "docs/privacy.md"];

/// Returns the code in a language, with the pages.
fn code(language: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for name in pages() {
        let text = page(&name);
        let blocks = code_blocks(&text, language);
        found.extend(blocks.into_iter().map(|block| (name.clone(), block.to_owned())));
    }
    assert!(!found.is_empty(), "{language}");
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sql_of_each_page_works() {
    let scene = scenes::two_changes().await;
    let reader = Role::new(&scene.fixture).await;
    scene.fixture.db.execute("CREATE SCHEMA app").await;
    let mut commands = Vec::new();
    for (at, (name, block)) in code("sql").iter().enumerate() {
        if !SQL_ELSEWHERE.contains(&name.as_str()) {
            let file = format!("{at}.sql");
            fs::write(
                scene.folder.path().join(&file),
                block.replace("app_reader", &reader.name),
            )
            .unwrap();
            // The name of the page is for the message of a failure.
            commands.push(format!(
                r#"psql "$DATABASE_URL" --no-psqlrc --quiet -v ON_ERROR_STOP=1 -f {file} # {name}"#
            ));
        }
    }
    assert!(commands.len() > 10, "{commands:?}");
    let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
    scene.run(&commands).await;
    reader.end(&scene.fixture).await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_configuration_is_accepted() {
    let scene = Scene::new(0).await;
    for (name, block) in code("toml") {
        scene.configure(&block);
        // It reads the configuration, and finds no daemon.
        let ran = scene.prepare(&["health", "--format", "json"]).await;
        assert_eq!(ran.code, Some(Exit::Failed as i32), "{name}: {block}\n{ran:#?}");
    }
    scene.configure("[mirror]\nresource = []\n");
    scene.prepare(&["health"]).await.assert_exit(Exit::Usage);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_has_the_keys_that_the_page_shows() {
    let page = page("docs/events.md");
    let [shown] = code_blocks(&page, "json")[..] else {
        panic!("the page has other JSON")
    };
    let shown: Value = serde_json::from_str(&shown.replace(", …}", "}")).unwrap();
    let scene = scenes::two_changes().await;
    let sql = "SELECT payload::text FROM clerk.user_events WHERE type = 'user.updated'";
    let payload: Value = serde_json::from_str(&scene.fixture.db.text(sql).await.unwrap()).unwrap();
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(keys(&payload), keys(&shown));
    assert!(keys(&payload["data"]).is_superset(&keys(&shown["data"])));
    for key in ["object", "type"] {
        assert_eq!(payload[key], shown[key]);
    }
}

/// Returns the only block of commands of a page that contains a text.
fn commands(page_name: &str, part: &str) -> String {
    let page = page(page_name);
    let blocks = code_blocks(&page, "sh").into_iter();
    let [block] = blocks.filter(|block| block.contains(part)).collect::<Vec<_>>()[..] else {
        panic!("{page_name} has no {part}, or several")
    };
    block.to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_that_mirror_another_instance_work() {
    let block = commands("docs/backup.md", "clerk2pg repin");
    let scene = scenes::another_instance().await.exits(&[0, 0, 0, 3]);
    let before = scene.fixture.users().await;
    let commands = block.replace("ins_2XyZ…", &scene.other_instance());
    let commands: Vec<&str> = commands.lines().collect();
    scene.run(&commands).await;
    assert_eq!(scene.fixture.users().await, before + 100, "the users of both instances");
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_that_reverts_a_migration_works() {
    let block = commands("docs/upgrading.md", "down.sql");
    let scene = Scene::mirrored(10).await;
    let migrations = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations");
    let command = block
        .replace("migrations/", &format!("{migrations}/"))
        .replace("\\\n", "");
    let printed = scene.run(&[command.trim(), "clerk2pg migrate"]).await;
    assert!(printed[1].starts_with("applied 20261130000003\n"), "{printed:?}");
    scene.once(Exit::Ok).await;
    scene.end().await;
}

#[test]
fn each_make_target_exists() {
    let makefile = page("Makefile");
    let mut found = 0;
    for (name, block) in code("sh") {
        for line in block.lines() {
            if let Some(target) = line
                .strip_prefix("make ")
                .and_then(|rest| rest.split_whitespace().next())
            {
                assert!(makefile.contains(&format!("\n{target}: ##")), "{name}: {line}");
                found += 1;
            }
        }
    }
    assert!(found > 0);
}
