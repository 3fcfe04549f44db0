use tokio::time::timeout;

use super::{
    super::{
        debounce::{QUIET, debounce},
        rules,
        scan::scan,
    },
    *,
};

#[test]
fn exhausted_inotify_limit_is_reported_with_a_fix() {
    let watches = warning(&notify::Error::new(notify::ErrorKind::MaxFilesWatch));
    assert!(watches.contains("sysctl fs.inotify.max_user_watches=524288"), "{watches}");
    let instances = warning(&notify::Error::io(std::io::Error::from_raw_os_error(24)));
    assert!(instances.contains("sysctl fs.inotify.max_user_instances"), "{instances}");
}

#[test]
fn inotify_failure_falls_back_to_polling() {
    let (changes, _receiver) = watch::channel(Instant::now());
    let mut watcher = DirectoryWatcher::new(changes, PathBuf::from("/d"));
    watcher.start();
    assert_eq!(watcher.warning(), None);
    watcher.fall_back_to_polling(&notify::Error::new(notify::ErrorKind::MaxFilesWatch));
    assert!(watcher.watcher.is_none() && watcher.warning().is_some());
    // A scan also works without an active watcher.
    watcher.folder(Path::new("/d"), (1, 1, (1, 0)));
    watcher.finish_scan(true);
}

/// Scans all folders, as a round does.
fn scan_all(watcher: &mut DirectoryWatcher, receiver: &mut watch::Receiver<Instant>) {
    receiver.borrow_and_update();
    watcher.begin_scan();
    let root = watcher.root.clone();
    scan(&root, &rules::Rules::default(), watcher).expect("a scan");
    watcher.finish_scan(true);
}

async fn receives(receiver: &mut watch::Receiver<Instant>, folder: &Path, what: &str) {
    timeout(Duration::from_secs(10), receiver.changed()).await.expect(what).expect("a watcher");
    debounce(receiver, folder).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn folder_stays_watched_when_one_of_two_links_is_removed() {
    let (folder, elsewhere) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let (root, deep) = (folder.path(), elsewhere.path().join("deep"));
    std::fs::create_dir(&deep).expect("a folder");
    for name in ["one", "two"] {
        std::os::unix::fs::symlink(elsewhere.path(), root.join(name)).expect("a link");
    }
    let (changes, mut receiver) = watch::channel(Instant::now());
    let mut watcher = DirectoryWatcher::new(changes, root.to_owned());
    watcher.start();
    scan_all(&mut watcher, &mut receiver);
    for removed in ["one", "two"] {
        std::fs::remove_file(root.join(removed)).expect("removed");
        receives(&mut receiver, root, "an event about the removal").await;
        scan_all(&mut watcher, &mut receiver);
        if removed == "one" {
            std::fs::write(deep.join("etl.py"), removed).expect("a file");
            receives(&mut receiver, root, "an event about a file by its other name").await;
            scan_all(&mut watcher, &mut receiver);
        }
    }
}

/// A folder that is moved away and back is watched again, even with the same identity.
#[tokio::test(flavor = "multi_thread")]
async fn folder_moved_away_and_back_is_watched_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let sub = folder.path().join("sub/deep");
    std::fs::create_dir_all(&sub).expect("folders");
    let (changes, mut receiver) = watch::channel(Instant::now());
    let mut watcher = DirectoryWatcher::new(changes, folder.path().to_owned());
    watcher.start();
    scan_all(&mut watcher, &mut receiver);
    let move_away_and_back = || {
        let (here, away) = (folder.path().join("sub"), folder.path().join("away"));
        std::fs::rename(&here, &away).and_then(|()| std::fs::rename(&away, &here)).expect("moved");
    };
    let make_anew = || {
        std::fs::remove_dir_all(folder.path().join("sub")).and_then(|()| std::fs::create_dir_all(&sub)).expect("made");
    };
    for change in [&move_away_and_back as &dyn Fn(), &make_anew] {
        change();
        receives(&mut receiver, folder.path(), "an event about the change").await;
        scan_all(&mut watcher, &mut receiver);
        std::fs::write(sub.join("etl.py"), "").expect("a file");
        receives(&mut receiver, folder.path(), "an event about a file").await;
        scan_all(&mut watcher, &mut receiver);
    }
}

/// A change anywhere on the path to a file is received, and so is a save there afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn symlink_targets_are_watched() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |path: &str| folder.path().join(path);
    let write = |path: &str| {
        std::fs::create_dir_all(at(path).parent().expect("a folder")).expect("folders");
        std::fs::write(at(path), "").expect("a file");
    };
    let link = |target: &str, path: &str| {
        // By rename, as is usual for switching links atomically.
        std::os::unix::fs::symlink(target, at("new")).expect("a link");
        std::fs::rename(at("new"), at(path)).expect("switched");
    };
    for path in ["releases/7/etl.py", "releases/7/..data_1/map.py", "releases/8/etl.py", "releases/8/..data_1/map.py"] {
        write(path);
    }
    for path in ["packages/1/x.py", "packages/2/x.py", "files/one.py", "releases/8/..data_2/map.py"] {
        write(path);
    }
    for release in ["7", "8"] {
        link("..data_1", &format!("releases/{release}/..data"));
        link("..data/map.py", &format!("releases/{release}/map.py"));
        link("../../packages/latest", &format!("releases/{release}/packages"));
        link(at("files/one.py").to_str().expect("text"), &format!("releases/{release}/one.py"));
        link("../../later/later.py", &format!("releases/{release}/later.py"));
    }
    link("1", "packages/latest");
    link("releases/7", "current");
    link("current", "dags");
    let (changes, mut receiver) = watch::channel(Instant::now());
    let mut watcher = DirectoryWatcher::new(changes, at("dags"));
    watcher.start();
    scan_all(&mut watcher, &mut receiver);
    let changes: [(&str, &dyn Fn()); 15] = [
        ("a link on the path to the root", &|| link("releases/8", "current")),
        ("a save in the new root", &|| write("releases/8/etl.py")),
        ("a map", &|| link("..data_2", "releases/8/..data")),
        ("a save in the new map", &|| write("releases/8/..data_2/map.py")),
        ("a link on the path to a folder", &|| link("2", "packages/latest")),
        ("a save in the new folder", &|| write("packages/2/x.py")),
        ("a file elsewhere that is replaced", &|| {
            write("files/other");
            std::fs::rename(at("files/other"), at("files/one.py")).expect("renamed");
        }),
        ("a save in the new file", &|| write("files/one.py")),
        ("a folder where there was none", &|| std::fs::create_dir(at("later")).expect("a folder")),
        ("a file where there was none", &|| write("later/later.py")),
        ("a save in it", &|| write("later/later.py")),
        ("a root that is replaced", &|| {
            std::fs::rename(at("releases/8"), at("releases/old")).expect("renamed");
            std::fs::rename(at("releases/7"), at("releases/8")).expect("renamed");
        }),
        ("a save in the root that came", &|| write("releases/8/etl.py")),
        ("a folder above the root that is away", &|| std::fs::rename(at("releases"), at("away")).expect("renamed")),
        ("and is back", &|| std::fs::rename(at("away"), at("releases")).expect("renamed")),
    ];
    for (what, change) in changes {
        receiver.borrow_and_update();
        change();
        receives(&mut receiver, folder.path(), what).await;
        if what != "a folder above the root that is away" {
            scan_all(&mut watcher, &mut receiver);
        }
    }
    // Former targets of links are not relevant.
    for path in ["releases/old/etl.py", "packages/1/x.py", "releases/old/..data_1/map.py", "files/two.py"] {
        write(path);
    }
    let received = timeout(QUIET, receiver.changed()).await;
    assert!(received.is_err(), "an event about files that are not watched");
}

/// A folder that is too large is not watched, but its link is.
#[tokio::test(flavor = "multi_thread")]
async fn incomplete_scan_watches_only_the_link() {
    let folder = tempfile::tempdir().expect("a folder");
    let (root, large) = (folder.path().join("dags"), folder.path().join("large"));
    std::fs::create_dir(&root).and_then(|()| std::fs::create_dir(&large)).expect("folders");
    std::os::unix::fs::symlink(&large, root.join("large")).expect("a link");
    let (changes, mut receiver) = watch::channel(Instant::now());
    let mut watcher = DirectoryWatcher::new(changes, root.clone());
    watcher.start();
    watcher.begin_scan();
    scan(&root, &rules::Rules::default(), &mut watcher).expect("a scan");
    watcher.finish_scan(false);
    receiver.borrow_and_update();
    std::fs::write(large.join("etl.py"), "").expect("a file");
    assert!(timeout(QUIET, receiver.changed()).await.is_err(), "an event about a file in there");
    std::fs::remove_file(root.join("large")).expect("removed");
    receives(&mut receiver, &root, "an event about the link").await;
}
