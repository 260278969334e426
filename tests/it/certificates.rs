//! Unusual certificates: expired ones, self-signed ones as their own root, and client certificates.

use rcgen::{BasicConstraints, IsCa, KeyPair, date_time_ymd};

use crate::support::{
    authority::parameters,
    connecting::{assert_accepted, assert_refused, migrate, url},
    postgres::Postgres,
    summary::Exit,
};

#[tokio::test(flavor = "multi_thread")]
async fn unusual_server_certificates_are_judged_as_libpq_does() {
    let server = Postgres::start().await;
    let ca = server.file("ca.pem", &server.authority.certificate);
    let check = async |parameters: String| migrate(&server, &url(&server, "encrypted", &parameters), &[]).await;

    let mut expired = parameters(&["localhost"], "localhost");
    expired.not_after = date_time_ymd(2020, 1, 1);
    let (certificate, key) = server.authority.sign_parameters(&expired);
    server.set_certificate(&certificate, &key).await;
    assert_refused(
        &check(format!("sslmode=verify-ca&sslrootcert={ca}")).await,
        Exit::Failed,
        "has expired",
        "clock",
    );
    assert_accepted(&check("sslmode=require".to_owned()).await);

    // A self-signed certificate, as `openssl req -x509` creates it, copied to the clients.
    let own = |not_after| {
        let (mut params, key) = (parameters(&["localhost"], "localhost"), KeyPair::generate().unwrap());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_after = date_time_ymd(not_after, 1, 1);
        (params.self_signed(&key).unwrap(), key.serialize_pem())
    };
    let (certificate, key) = own(3000);
    server.set_certificate(&certificate.pem(), &key).await;
    let file = server.file("own.pem", &certificate.pem());
    assert_accepted(&check(format!("sslmode=verify-full&sslrootcert={file}")).await);
    let elsewhere = format!("sslmode=verify-full&sslrootcert={file}&host=127.0.0.1");
    assert_refused(&check(elsewhere).await, Exit::Failed, "not for 127.0.0.1", "verify-ca");
    assert_refused(
        &check(format!("sslmode=verify-ca&sslrootcert={ca}")).await,
        Exit::Failed,
        "certificate",
        "",
    );
    let (certificate, key) = own(2020);
    server.set_certificate(&certificate.pem(), &key).await;
    let file = server.file("own.pem", &certificate.pem());
    assert_refused(
        &check(format!("sslmode=verify-ca&sslrootcert={file}")).await,
        Exit::Failed,
        "has expired",
        "clock",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn client_certificates_are_shown_as_libpq_does() {
    let server = Postgres::start().await;
    let check = async |parameters: &str, environment: &[(&str, &str)]| {
        let url = url(&server, "certified", &format!("sslmode=require{parameters}"));
        migrate(&server, &url, environment).await
    };
    assert_refused(
        &check("", &[]).await,
        Exit::Failed,
        "valid client certificate",
        "sslcert and sslkey",
    );
    let (certificate, key) = server.authority.sign(&[], "certified");
    let (certificate, key) = (server.file("client.crt", &certificate), server.file("client.key", &key));
    let shown = format!("&sslcert={certificate}&sslkey={key}");
    assert_accepted(&check(&shown, &[]).await);
    assert_accepted(&check("", &[("PGSSLCERT", &certificate), ("PGSSLKEY", &key)]).await);
    // A certificate of another user.
    let (someone, someones) = server.authority.sign(&[], "someone");
    let (someone, someones) = (
        server.file("someone.crt", &someone),
        server.file("someone.key", &someones),
    );
    let ran = check(&format!("&sslcert={someone}&sslkey={someones}"), &[]).await;
    assert_refused(
        &ran,
        Exit::Failed,
        "certificate authentication failed",
        "sslcert and sslkey",
    );
    let ran = check(&format!("&sslcert={certificate}&sslkey={someones}"), &[]).await;
    assert_refused(
        &ran,
        Exit::Usage,
        &format!("sslcert={certificate} cannot be used"),
        "set sslkey to the key",
    );

    // Unusable keys are reported before any connection.
    let chmod = |mode| {
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(&key, permissions).unwrap();
    };
    chmod(0o644);
    assert_refused(
        &check(&shown, &[]).await,
        Exit::Usage,
        "users other than its owner may read",
        "chmod 600",
    );
    chmod(0o600);
    let missing = format!("&sslcert={certificate}&sslkey=/nowhere/client.key");
    assert_refused(
        &check(&missing, &[]).await,
        Exit::Usage,
        "sslkey=/nowhere/client.key cannot be used: there is no such file",
        "PEM",
    );
    let ran = check(&format!("&sslcert={certificate}"), &[]).await;
    assert_refused(
        &ran,
        Exit::Usage,
        "/.postgresql/postgresql.key cannot be used: there is no such file",
        "PEM",
    );
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAA==\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let locked = server.file("locked.key", encrypted);
    let ran = check(&format!("&sslcert={certificate}&sslkey={locked}"), &[]).await;
    assert_refused(&ran, Exit::Usage, "the key is encrypted", "openssl pkey");

    // libpq's default locations.
    for (from, to) in [(&certificate, "postgresql.crt"), (&key, "postgresql.key")] {
        server.file(&format!(".postgresql/{to}"), &std::fs::read_to_string(from).unwrap());
    }
    assert_accepted(&check("", &[]).await);
}
