//! Who may use the API: each line of the rules of access, tried from outside.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
    process::Command,
};

use integration_tests::{
    Installation, eventually,
    served::{Served, command, over_socket, start_refused},
    text,
};
use rustix::process::geteuid;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it exists").permissions().mode() & 0o7777
}

#[test]
fn port_requires_the_token() {
    let it = Installation::new();
    let served = Served::with_port(&it);
    for path in ["/", "/page/page.js", "/openapi.json"] {
        served.get(path, "").is_answered();
    }
    let token = served.token();
    assert_eq!((token.len(), mode(&it.home().join("data/token"))), (43, 0o600));
    for headers in [
        String::new(),
        "Authorization: Bearer\r\n".to_owned(),
        "Authorization: Bearer \r\n".to_owned(),
        format!("Authorization: Bearer {}\r\n", &token[1..]),
        format!("Authorization: Bearer {token}x\r\n"),
        format!("Authorization: Basic {token}\r\n"),
        format!("Authorization: {token}\r\n"),
        format!("Authorization: Bearer {token}\r\nAuthorization: Bearer {token}\r\n"),
        format!("Cookie: token={token}\r\n"),
    ] {
        for path in ["/v1/version", "/v1/environments", "/nowhere", "/page/../v1/version", "/v1/version?/openapi.json"]
        {
            let answer = served.get(path, &headers);
            answer.is_refused(401, "unauthorized");
            assert!(answer.head.contains("www-authenticate: bearer"), "{answer:#?}");
            assert!(!answer.body.contains(&token), "{answer:#?}");
        }
    }
    served.get(&format!("/v1/version?token={token}"), "").is_refused(401, "unauthorized");
    served.with_token(&token).is_answered();
    served.get("/v1/version", &format!("authorization: bearer {token}\r\n")).is_answered();
    let post = format!("POST / HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", served.address);
    served.send(&post).is_refused(401, "unauthorized");

    let next = it.cli(&["daemon", "token", "--rotate", "--json"]).succeeded().json();
    let next = text(&next["token"]).to_owned();
    assert_ne!(token, next);
    served.with_token(&token).is_refused(401, "unauthorized");
    served.with_token(&next).is_answered();
    assert_eq!((served.token(), mode(&it.home().join("data/token"))), (next.clone(), 0o600));
    for secret in [&token, &next] {
        assert!(!it.log().contains(secret.as_str()), "the log has a token");
        let arguments = fs::read(format!("/proc/{}/cmdline", served.child.id())).expect("arguments");
        assert!(!String::from_utf8_lossy(&arguments).contains(secret.as_str()));
    }
    assert_eq!(it.files_with(&next), [it.home().join("data/token")]);
}

#[test]
fn exposed_token_is_refused() {
    let it = Installation::new();
    let token = it.cli(&["daemon", "token"]).succeeded().stdout;
    let path = it.home().join("data/token");
    let open = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("permissions");
    open(0o644);
    let mut with_port = command(&it);
    with_port.args(["--listen", "127.0.0.1:0"]);
    let message = start_refused(with_port);
    assert!(message.contains("can be read by others") && message.contains("token --rotate"), "{message}");
    let refused = it.cli(&["daemon", "token"]);
    assert!(refused.code == 3 && refused.stderr.contains("--rotate"), "{refused:#?}");
    assert!(!message.contains(token.trim()) && !refused.stderr.contains(token.trim()));

    let token = it.cli(&["daemon", "token", "--rotate"]).succeeded().stdout;
    let served = Served::with_port(&it);
    served.with_token(token.trim()).is_answered();
    open(0o640);
    served.with_token(token.trim()).is_refused(401, "unauthorized");
    assert!(it.log().contains("can be read by others"), "{}", it.log());
    over_socket(&it, "GET /v1/version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").is_answered();
    it.cli(&["daemon", "token", "--rotate"]).succeeded();
    served.with_token(&served.token()).is_answered();
}

#[test]
fn only_loopback_addresses_are_accepted() {
    let it = Installation::new();
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:80", "[::ffff:127.0.0.1]:0"] {
        let mut command = command(&it);
        command.args(["--listen", address]);
        let message = start_refused(command);
        assert!(message.contains("from other machines"), "{address}: {message}");
    }
    it.set_up_daemon("listen: 0.0.0.0:8793\n");
    let refused = it.cli(&["daemon", "start"]);
    assert!(refused.code != 0 && refused.stderr.contains("from other machines"), "{refused:#?}");

    it.set_up_daemon("listen: localhost:0\n");
    it.cli(&["daemon", "start"]).succeeded();
    let status = it.cli(&["daemon", "status", "--json"]).json();
    let address = text(&status["addresses"][0]);
    assert!(address.starts_with("http://127.0.0.1:") && !address.ends_with(":0"), "{status}");
    assert!(it.log().contains(address), "{}", it.log());
    let listening = fs::read_to_string("/proc/net/tcp").expect("sockets");
    let port =
        format!(":{:04X} ", address.rsplit(':').next().and_then(|port| port.parse::<u16>().ok()).expect("a port"));
    let lines: Vec<_> = listening.lines().filter(|line| line.contains(&port) && line.contains(" 0A ")).collect();
    assert!(lines.len() == 1 && lines[0].contains(" 0100007F:"), "{lines:?}");
    it.cli(&["daemon", "stop"]).succeeded();
    assert!(!it.home().join("run/airflowd.addr").exists() && !it.socket().exists());
}

#[test]
fn foreign_hosts_and_origins_are_refused() {
    let it = Installation::new();
    let served = Served::with_port(&it);
    let address = served.address.as_str();
    let port = address.rsplit_once(':').expect("a port").1;
    let bearer = format!("Authorization: Bearer {}\r\n", served.token());

    // DNS rebinding: the page's own name leads here.
    let hosts =
        ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "localhost@evil.example", "10.0.0.1"];
    for host in hosts.iter().flat_map(|host| [(*host).to_owned(), format!("{host}:{port}")]) {
        for path in ["/", "/v1/version"] {
            let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{bearer}Connection: close\r\n\r\n");
            served.send(&request).is_refused(421, "host-not-allowed");
            over_socket(&it, &request).is_refused(421, "host-not-allowed");
        }
    }
    let request = |line: &str, hosts: &str| format!("{line} HTTP/1.1\r\n{hosts}{bearer}Connection: close\r\n\r\n");
    let own = format!("Host: {address}\r\n");
    served.send(&request("GET http://evil.example/v1/version", &own)).is_refused(421, "host-not-allowed");
    served.send(&request("GET /v1/version", "")).is_refused(400, "invalid-host");
    served.send(&request("GET /v1/version", &format!("{own}{own}"))).is_refused(400, "invalid-host");
    served.send(&request("GET /v1/version", &format!("{own}Host: evil.example\r\n"))).is_refused(400, "invalid-host");
    for host in ["localhost", "LOCALHOST:1", "127.0.0.1", "[::1]:80"] {
        served.send(&request("GET /v1/version", &format!("Host: {host}\r\n"))).is_answered();
    }

    // Requests that a browser sends for a page of another site, even if it knew the token.
    let foreign = [
        "Origin: null".to_owned(),
        "Origin: https://evil.example".to_owned(),
        format!("Origin: https://{address}"),
        format!("Origin: http://localhost.evil.example:{port}"),
        "Origin: http://127.0.0.1:1".to_owned(),
        format!("Origin: http://{address}\r\nOrigin: null"),
        "Sec-Fetch-Site: cross-site".to_owned(),
        "Sec-Fetch-Site: same-site".to_owned(),
        format!("Origin: http://{address}\r\nSec-Fetch-Site: cross-site"),
    ];
    for headers in &foreign {
        for line in ["GET /", "GET /v1/version", "OPTIONS /v1/environments", "POST /v1/environments"] {
            let request = request(line, &format!("{own}{headers}\r\n"));
            served.send(&request).is_refused(403, "origin-not-allowed");
            over_socket(&it, &request).is_refused(403, "origin-not-allowed");
        }
    }
    for headers in
        [format!("Origin: http://{address}"), format!("Origin: http://localhost:{port}"), "Sec-Fetch-Site: none".into()]
    {
        served
            .send(&request("GET /v1/version", &format!("{own}{headers}\r\nSec-Fetch-Site: same-origin\r\n")))
            .is_answered();
    }
    // A preflight is a request like any other.
    let preflight = format!("{own}Origin: http://{address}\r\nAccess-Control-Request-Method: POST\r\n");
    served.send(&request("OPTIONS /v1/environments", &preflight)).is_refused(405, "no-such-method");
    // What a form can send is no JSON.
    for media_type in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"] {
        let post = format!("{own}Content-Type: {media_type}\r\nContent-Length: 2\r\n");
        let mut request = request("POST /v1/environments", &post);
        request.push_str("{}");
        served.send(&request).is_refused(415, "unsupported-media-type");
    }
}

#[test]
fn responses_have_security_headers_and_request_ids() {
    let it = Installation::new();
    let served = Served::with_port(&it);
    let page = served.get("/", "");
    for header in [
        "content-security-policy: default-src 'none'; script-src 'self'",
        "x-content-type-options: nosniff",
        "x-frame-options: deny",
        "referrer-policy: no-referrer",
        "cross-origin-opener-policy: same-origin",
    ] {
        assert!(page.head.contains(header), "no {header} in {page:#?}");
    }
    assert!(
        !page.body.contains("http://") && !page.body.contains("https://"),
        "the page loads something from elsewhere"
    );
    let version = served.with_token(&served.token());
    for header in
        ["x-content-type-options: nosniff", "cache-control: no-store", "cross-origin-resource-policy: same-origin"]
    {
        assert!(version.head.contains(header), "no {header} in {version:#?}");
    }
    let named = served.get("/v1/version", "X-Request-Id: deploy-17\r\n");
    assert!(named.head.contains("x-request-id: deploy-17"), "{named:#?}");
    let forged = served.get("/v1/version", "X-Request-Id: a b\"<script>\r\n");
    assert!(forged.head.contains("x-request-id: ") && !forged.head.contains("script"), "{forged:#?}");
}

#[test]
fn socket_serves_only_the_user_of_the_daemon() {
    let it = Installation::new();
    it.cli(&["daemon", "start"]).succeeded();
    assert_eq!(
        (mode(&it.socket()), mode(&it.home().join("run")), mode(&it.home().join("data"))),
        (0o600, 0o700, 0o700)
    );
    if !geteuid().is_root() {
        eprintln!("not tried as another user: only root can become one");
        return;
    }
    // Even if all that keeps others out is opened.
    let reachable = it.root().join("s");
    fs::rename(it.socket(), &reachable).expect("the socket elsewhere");
    for (path, mode) in [(it.root(), 0o755), (&reachable, 0o666)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("permissions");
    }
    chown(&reachable, Some(65534), Some(65534)).expect("another owner");
    let script = format!(
        "import os, socket, sys\nos.setgroups([]); os.setgid(int(sys.argv[1])); os.setuid(int(sys.argv[1]))\n\
         s = socket.socket(socket.AF_UNIX); s.settimeout(20); s.connect('{}')\n\
         try: s.sendall(b'GET /v1/version HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n'); print(s.recv(9))\n\
         except ConnectionError: print(b'')",
        reachable.display()
    );
    let as_user = |uid: &str| {
        let done = Command::new("python3").args(["-c", &script, uid]).output().expect("python3 runs");
        assert!(done.status.success(), "{done:?}");
        String::from_utf8_lossy(&done.stdout).trim().to_owned()
    };
    assert_eq!(as_user("65534"), "b''", "another user was served");
    assert_eq!(as_user("0"), "b'HTTP/1.1 '");
    eventually("the refusal in the log", || it.log().contains("user 65534 is not the daemon's").then_some(()));
    fs::rename(&reachable, it.socket()).expect("the socket back");
}

/// Starts the daemon with sockets that this Python code has opened, as a service manager does.
fn activated(it: &Installation, sockets: &str) -> Command {
    let script = format!(
        "import os, socket, sys\nsockets = [{sockets}]\n\
         for number, s in enumerate(sockets, 3):\n    os.dup2(os.dup(s.fileno()), number + 10)\n\
         for number in range(3, 3 + len(sockets)):\n    os.dup2(number + 10, number)\n    os.set_inheritable(number, True)\n\
         os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(sockets)), LISTEN_FDNAMES='a')\n\
         os.execv(sys.argv[1], sys.argv[1:2])\n"
    );
    let mut command = Command::new("python3");
    command.envs(it.variables()).args(["-c", &script]).arg(it.program("airflowd"));
    command
}

#[test]
fn sockets_of_a_service_manager_are_served() {
    let it = Installation::new();
    fs::create_dir_all(it.home().join("run")).expect("a folder");
    let unix =
        format!("(lambda s: (s.bind('{}'), s.listen(), s)[2])(socket.socket(socket.AF_UNIX))", it.socket().display());
    let tcp = |address: &str| format!("socket.create_server(('{address}', 0))");
    {
        let served = Served::start(&it, &mut activated(&it, &format!("{unix}, {}", tcp("127.0.0.1"))));
        served.with_token(&served.token()).is_answered();
        served.get("/v1/version", "").is_refused(401, "unauthorized");
        let variables = fs::read_to_string(format!("/proc/{}/environ", served.child.id())).expect("variables");
        assert!(variables.contains("LISTEN_FDS="), "it was not activated");
    }
    assert!(it.socket().exists(), "the daemon removed a socket that is not its own");
    fs::remove_file(it.socket()).expect("the socket is gone");
    for (sockets, message) in [
        (tcp("0.0.0.0"), "from other machines"),
        ("socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)".to_owned(), "neither a listening Unix stream socket"),
        ("socket.socket(socket.AF_INET, socket.SOCK_DGRAM)".to_owned(), "neither a listening Unix stream socket"),
        ("socket.socket(socket.AF_UNIX)".to_owned(), "neither a listening Unix stream socket"),
        ("open('/dev/null')".to_owned(), "neither a listening Unix stream socket"),
    ] {
        let error = start_refused(activated(&it, &sockets));
        assert!(error.contains(message), "{sockets}: {error}");
        assert!(!it.socket().exists(), "something was served");
    }
    // Sockets for another process are not taken.
    let served = Served::start(&it, command(&it).env("LISTEN_PID", "1").env("LISTEN_FDS", "2"));
    drop(served);
}
