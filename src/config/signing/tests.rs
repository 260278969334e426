use super::*;
use crate::{config::folder::Folder, deliver::signatures};

const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const OLDER: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const APP: &str = "[[endpoints]]\nname = \"app\"\nurl = \"http://app:3000/\"\n";
const NEWEST: &str = "CLERK_WEBHOOK_SIGNING_SECRET";
const FORMER: &str = "CLERK_WEBHOOK_SECRET";

/// Asserts which secrets sign, and in which order.
#[track_caller]
fn assert_keys(keys: &[SigningKey], secrets: &[&str]) {
    let signed = |keys: &[SigningKey]| signatures(keys, "msg_1", 1, "{}");
    let expected: Vec<_> = secrets
        .iter()
        .map(|secret| SigningKey::parse(secret).unwrap())
        .collect();
    assert_eq!(signed(keys), signed(&expected), "{secrets:?}");
}

/// Asserts which secrets the one endpoint of a folder has.
#[track_caller]
fn assert_secrets(folder: &Folder, environment: &[(&str, &str)], secrets: &[&str]) {
    assert_keys(&folder.endpoints(environment).unwrap()[0].keys, secrets);
}

#[track_caller]
fn assert_error(folder: &Folder, environment: &[(&str, &str)], message: &str, hint: &str) {
    let error = folder.endpoints(environment).unwrap_err();
    let shown = error.hint.as_deref().unwrap_or_default();
    assert_eq!(error.message, message);
    assert!(shown.contains(hint), "{hint:?} is not in the hint {shown:?}");
    for secret in [SECRET, OLDER, "hidden"] {
        assert!(!format!("{error:?}").contains(secret), "{error:?}");
    }
}

#[test]
fn the_entry_wins_over_the_environment() {
    let environment = [(NEWEST, OLDER), (FORMER, "whsec_AAAA")];
    for (line, expected) in [
        (format!("secret = \"{SECRET}\""), &[SECRET][..]),
        (format!("secret = [\"{SECRET}\"]"), &[SECRET]),
        (format!("secret = [\"{SECRET}\", \"{OLDER}\"]"), &[SECRET, OLDER]),
        (format!("secret = [\"{OLDER}\", \"{SECRET}\"]"), &[OLDER, SECRET]),
        (format!("secret = [\"\", \"{SECRET}\"]"), &[SECRET]),
        (String::new(), &[OLDER]),
        ("secret = \"\"".to_owned(), &[OLDER]),
        ("secret = []\nsecret_file = \"\"".to_owned(), &[OLDER]),
    ] {
        assert_secrets(&Folder::new(&format!("{APP}{line}\n")), &environment, expected);
    }
}

#[test]
fn each_entry_may_have_a_file() {
    let folder = Folder::new("");
    let one = folder.write("one", &format!("{SECRET}\n"));
    let two = folder.write("two", &format!("\n{OLDER}\r\n{SECRET}\r\n"));
    let entry = |name: &str, file: &str| {
        let app = APP.replace("\"app\"", &format!("\"{name}\""));
        format!("{app}secret_file = \"{file}\"\n")
    };
    folder.write("config.toml", &(entry("one", &one) + &entry("two", &two)));
    let found = folder.endpoints(&[(NEWEST, "whsec_AAAA")]).unwrap();
    assert_keys(&found[0].keys, &[SECRET]);
    assert_keys(&found[1].keys, &[OLDER, SECRET]);
}

#[test]
fn the_environment_serves_all_others() {
    let folder = Folder::new(APP);
    let both = format!("{OLDER}, {SECRET}");
    let file = folder.write("secret", &format!("{SECRET} {OLDER}\n"));
    let credentials = tempfile::tempdir().unwrap();
    std::fs::write(credentials.path().join(FORMER), OLDER).unwrap();
    let credentials = credentials.path().display().to_string();
    for (environment, expected) in [
        (&[(NEWEST, SECRET), (FORMER, OLDER)][..], &[SECRET][..]),
        (&[(NEWEST, ""), (FORMER, OLDER)], &[OLDER]),
        (&[(NEWEST, &both)], &[OLDER, SECRET]),
        (&[("CLERK_WEBHOOK_SIGNING_SECRET_FILE", &file)], &[SECRET, OLDER]),
        (&[("CLERK_WEBHOOK_SECRET_FILE", &file), (NEWEST, OLDER)], &[OLDER]),
        (&[("CREDENTIALS_DIRECTORY", &credentials)], &[OLDER]),
        (&[("CREDENTIALS_DIRECTORY", &credentials), (NEWEST, SECRET)], &[SECRET]),
    ] {
        assert_secrets(&folder, environment, expected);
    }
}

#[test]
fn a_missing_secret_says_where_to_get_one() {
    let nothing = "DIR/config.toml: [[endpoints]] app has no secret, and CLERK_WEBHOOK_SIGNING_SECRET is not set";
    let folder = Folder::new(APP);
    for hint in ["Webhooks → endpoint → Signing Secret", "openssl rand -base64 24"] {
        assert_error(&folder, &[], nothing, hint);
        assert_error(&folder, &[(NEWEST, ""), (FORMER, "")], nothing, hint);
    }
    // The first endpoint without one is reported.
    let second = APP.replace("\"app\"", "\"second\"");
    let folder = Folder::new(&format!(
        "{APP}secret = \"{SECRET}\"\n{second}{}",
        second.replace("second", "third")
    ));
    assert_error(&folder, &[], &nothing.replace(" app ", " second "), "whsec_");
    // Commands that deliver nothing do not need it.
    assert!(folder.load(&[]).is_ok());
}

#[test]
fn values_of_a_wrong_form_are_refused_and_not_shown() {
    let app = "DIR/config.toml: [[endpoints]] app";
    let form = "is not a signing secret: whsec_ and base64, without quotes or a name before it";
    for secret in [
        "hidden",
        "sk_live_hidden",
        "whsec_",
        "whsec_hidden!",
        "whsec_hidden12345",
        "WHSEC_C2FVsBQIhrscChlQIMV",
        "C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
        "$CLERK_WEBHOOK_SIGNING_SECRET",
    ] {
        for line in [
            format!("secret = \"{secret}\""),
            format!("secret = [\"{SECRET}\", \"{secret}\"]"),
        ] {
            let folder = Folder::new(&format!("{APP}{line}\n"));
            assert_error(&folder, &[], &format!("{app}: secret {form}"), "Signing Secret");
        }
        let folder = Folder::new(APP);
        assert_error(
            &folder,
            &[(FORMER, secret)],
            &format!("{app}: {FORMER} {form}"),
            "Signing Secret",
        );
        let file = folder.write("secret", secret);
        folder.write("config.toml", &format!("{APP}secret_file = \"{file}\"\n"));
        let message = format!("{app}: the file that secret_file names {form}");
        assert_error(&folder, &[], &message, "Signing Secret");
    }
    let three = format!("{SECRET} {OLDER}\t{SECRET}");
    let message = format!("{app}: {NEWEST} holds 3 signing secrets");
    assert_error(&Folder::new(APP), &[(NEWEST, &three)], &message, "the newer one first");
    let message = format!("{app}: {NEWEST} holds no signing secret");
    assert_error(&Folder::new(APP), &[(NEWEST, " , ")], &message, "Signing Secret");
}

#[test]
fn wrong_places_are_refused() {
    let check = |line: &str, message: &str, hint: &str| {
        assert_error(&Folder::new(&format!("{APP}{line}\n")), &[], message, hint);
    };
    let app = "DIR/config.toml: [[endpoints]] app";
    for secret in ["5", "[5]", "{ hidden = 'hidden' }", "[['hidden']]"] {
        let error = Folder::new(&format!("{APP}secret = {secret}\n")).load(&[]).unwrap_err();
        assert_eq!(error.message, format!("{app}: secret cannot be used"));
        assert!(error.hint.unwrap().contains("a list of two"), "{secret}");
    }
    let both = format!("{APP}secret = \"{SECRET}\"\nsecret_file = \"x\"\n");
    let error = Folder::new(&both).load(&[]).unwrap_err();
    assert_eq!(error.message, format!("{app}: it has secret and secret_file"));
    let missing = "No such file or directory (os error 2)";
    check(
        "secret_file = \"/nowhere/secret\"",
        &format!("/nowhere/secret cannot be read: {missing}"),
        "it is named by secret_file of [[endpoints]] app",
    );
    check(
        &format!("secret_file = \"{SECRET}\""),
        &format!("the file that secret_file of [[endpoints]] app names cannot be read: {missing}"),
        "its absolute path",
    );
}

#[test]
fn files_that_others_can_read_are_reported() {
    let folder = Folder::new("");
    folder.allow("", 0o755);
    let file = folder.write("secret", SECRET);
    let config = folder.write("config.toml", "");
    let exposed = |entry: &str, mode: u32, environment: &[(&str, &str)]| {
        folder.write("config.toml", &format!("{APP}{entry}\n"));
        folder.allow("config.toml", 0o644);
        folder.allow("secret", mode);
        let files = folder.load(environment).unwrap().exposed();
        files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>()
    };
    let own = format!("secret_file = \"{file}\"");
    assert_eq!(exposed(&own, 0o644, &[]), [file.as_str()]);
    assert_eq!(exposed(&own, 0o640, &[]), [""; 0]);
    let of_all = [("CLERK_WEBHOOK_SIGNING_SECRET_FILE", file.as_str())];
    assert_eq!(exposed("", 0o644, &of_all), [file.as_str()]);
    assert_eq!(
        exposed(&format!("secret = \"{SECRET}\""), 0o644, &of_all),
        [config.as_str()]
    );
    assert_eq!(exposed("", 0o644, &[(NEWEST, SECRET)]), [""; 0]);
}
