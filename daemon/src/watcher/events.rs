//! Learning that something changed. Which file it was is of no interest: whoever is woken looks at the whole folder, so
//! that lost, repeated and late events are all the same.

use std::{
    collections::{HashMap, HashSet},
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode, ModifyKind, RenameMode},
};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

use super::{
    rules,
    scan::{Identity, Visitor, identity},
};
use crate::regular_file;

/// How long it has to be quiet after an event: programs save in several steps.
pub const QUIET: Duration = Duration::from_millis(200);
/// Longest wait for that.
const LONGEST_UNREST: Duration = Duration::from_secs(2);
/// Longest wait for git, which says when it is done.
const LONGEST_CHECKOUT: Duration = Duration::from_secs(30);
/// How long a system that does not tell of changes is left alone: each try takes from others what is left of its limits.
const REFUSAL_PERIOD: Duration = Duration::from_secs(300);
/// Paths of which it is remembered that they were removed, until the next look.
const MOST_GONE: usize = 10_000;

/// Rings when something may have changed, and keeps ringing until somebody looks.
pub type Alarm = watch::Sender<Instant>;

/// Waits until whatever rang is over, but not for ever.
pub async fn settle(alarm: &mut watch::Receiver<Instant>, root: &Path) {
    let started = Instant::now();
    loop {
        let folder = root.to_owned();
        // The disk may be slow, or far away.
        let looked = tokio::task::spawn_blocking(move || is_locked_by_git(&folder)).await;
        let is_checkout = looked.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        let limit = if is_checkout { LONGEST_CHECKOUT } else { LONGEST_UNREST };
        if started.elapsed() >= limit {
            return;
        }
        let quiet_at = *alarm.borrow_and_update() + QUIET;
        let remaining = quiet_at.saturating_duration_since(Instant::now());
        match remaining.is_zero() {
            true if is_checkout => tokio::time::sleep(QUIET).await,
            true => return,
            // More news or not, what counts is when the last of it came.
            false => drop(timeout(remaining, alarm.changed()).await),
        }
    }
}

/// Of a file `.git`, which is a line with a path.
const LONGEST_GIT_FILE: u64 = 16 << 10;

/// Whether git is changing the files of the repository that the folder is in.
fn is_locked_by_git(root: &Path) -> bool {
    root.ancestors().map(|folder| folder.join(".git")).find(|git| git.exists()).is_some_and(|git| {
        // In a worktree it is a file that names the place.
        let place = regular_file::read_text(&git, LONGEST_GIT_FILE).ok().and_then(|text| {
            let place = text.strip_prefix("gitdir:")?.trim().to_owned();
            Some(git.with_file_name(place))
        });
        place.unwrap_or(git).join("index.lock").exists()
    })
}

/// The system's eyes on the folders of one watch: those with its files, and those on the way there.
pub struct Folders {
    alarm: Alarm,
    root: PathBuf,
    watcher: Option<RecommendedWatcher>,
    /// Why there is none.
    warning: Option<String>,
    /// When the system refused.
    refused_at: Option<Instant>,
    watched: Watched,
    gone: Gone,
    interests: Interests,
    /// What the look under way has seen: the system knows a folder by what it is, and so by one path.
    seen: HashMap<Identity, PathBuf>,
}

impl Folders {
    /// Eyes that are closed: [`Folders::open`] opens them.
    pub fn new(alarm: Alarm, root: PathBuf) -> Self {
        let (watched, gone, interests, seen) =
            (Watched::default(), Gone::default(), Interests::default(), HashMap::new());
        Self { alarm, root, watcher: None, warning: None, refused_at: None, watched, gone, interests, seen }
    }

    /// Asks the system to tell of changes. What it does not want to tell is looked for again and again, with a warning.
    pub fn open(&mut self) {
        if self.watcher.is_some() || self.refused_at.is_some_and(|at| at.elapsed() < REFUSAL_PERIOD) {
            return;
        }
        let (alarm, interests, gone) = (self.alarm.clone(), self.interests.clone(), self.gone.clone());
        let handler = move |event: notify::Result<Event>| {
            let is_news = event.map_or(true, |event| {
                gone.note(&event);
                interests.is_news(&event)
            });
            if is_news {
                alarm.send_replace(Instant::now());
            }
        };
        self.watched = Watched::default();
        self.refused_at = None;
        match RecommendedWatcher::new(handler, notify::Config::default()) {
            Ok(watcher) => self.watcher = Some(watcher),
            Err(error) => self.give_up(&error),
        }
    }

    /// Before a look: what was removed is not watched any more, also if the same folder is back at its place.
    pub fn begin(&mut self) {
        // What is of interest the look says anew, each time before it reads it.
        self.interests.lock().clear();
        self.seen.clear();
        let gone = std::mem::take(&mut *self.gone.lock());
        if gone.all {
            self.watched = Watched::default();
        } else if !gone.paths.is_empty() {
            self.watched.retain(|path| !path.ancestors().any(|part| gone.paths.contains(part)));
        }
    }

    /// Never asks the system.
    pub fn close(&mut self, warning: &str) {
        self.watcher = None;
        self.warning = Some(warning.to_owned());
    }

    pub fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }

    /// After a look: watches no more what is gone. After one that failed, perhaps for too many folders, only what leads
    /// to them is watched.
    pub fn finish(&mut self, is_complete: bool) {
        if self.watcher.is_some() && self.warning.take().is_some() {
            tracing::info!(watch.directory = %self.root.display(), "the system reports changes again");
        }
        let Some(watcher) = &mut self.watcher else { return };
        if !is_complete {
            let mut interests = self.interests.lock();
            interests.retain(|_, interest| !interest.entries.is_empty());
            interests.values_mut().for_each(|interest| interest.has_files = false);
            self.seen.retain(|_, path| interests.contains_key(path));
        }
        self.watched.retain(|path| {
            let is_seen = self.interests.lock().contains_key(path);
            if !is_seen {
                // Mostly the system has stopped by itself.
                let _ = watcher.unwatch(path);
            }
            is_seen
        });
    }

    /// Watches a folder, if it is not watched, and notes what is of interest there.
    fn watch(&mut self, path: &Path, identity: Identity, note: impl FnOnce(&mut Interest)) {
        let Some(watcher) = &mut self.watcher else { return };
        let is_new = !self.seen.contains_key(&identity);
        let known = self.seen.entry(identity).or_insert_with(|| path.to_owned());
        note(self.interests.lock().entry(known.clone()).or_default());
        if !is_new || self.watched.by_path.get(path) == Some(&identity) {
            return;
        }
        // The system would stop watching it by its new name together with the old one.
        for old in self.watched.forget(path, identity) {
            let _ = watcher.unwatch(&old);
        }
        match watcher.watch(path, RecursiveMode::NonRecursive) {
            Ok(()) => self.watched.insert(path.to_owned(), identity),
            // It has just been removed, which the folder above it tells.
            Err(error) if is_absence(&error) => {}
            Err(error) => self.give_up(&error),
        }
    }

    fn give_up(&mut self, error: &notify::Error) {
        let warning = warning(error);
        if self.warning.as_ref() != Some(&warning) {
            tracing::warn!(watch.directory = %self.root.display(), warning, "a folder is polled");
        }
        self.refused_at = Some(Instant::now());
        self.close(&warning);
    }
}

/// What was removed or moved away since the last look. With it goes the system's watch, of which it tells nobody.
#[derive(Clone, Default)]
struct Gone(Arc<Mutex<Removed>>);

#[derive(Default)]
struct Removed {
    paths: HashSet<PathBuf>,
    /// There may be more.
    all: bool,
}

impl Gone {
    fn lock(&self) -> MutexGuard<'_, Removed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, event: &Event) {
        let is_removal =
            matches!(event.kind, EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(RenameMode::From)));
        if !is_removal && !event.need_rescan() {
            return;
        }
        let mut removed = self.lock();
        removed.paths.extend(event.paths.iter().cloned());
        if removed.paths.len() > MOST_GONE || event.need_rescan() {
            *removed = Removed { all: true, ..Removed::default() };
        }
    }
}

/// What the system watches.
#[derive(Default)]
struct Watched {
    by_path: HashMap<PathBuf, Identity>,
    by_identity: HashMap<Identity, PathBuf>,
}

impl Watched {
    fn insert(&mut self, path: PathBuf, identity: Identity) {
        self.by_identity.insert(identity, path.clone());
        self.by_path.insert(path, identity);
    }

    /// Forgets what was at the path, and the folder where it was; gives the paths at which something was.
    fn forget(&mut self, path: &Path, identity: Identity) -> Vec<PathBuf> {
        let mut paths: Vec<PathBuf> = self.by_identity.remove(&identity).into_iter().collect();
        if let Some(before) = self.by_path.get(path).filter(|before| **before != identity) {
            self.by_identity.remove(before);
            paths.push(path.to_owned());
        }
        for path in &paths {
            self.by_path.remove(path);
        }
        paths
    }

    fn retain(&mut self, mut is_kept: impl FnMut(&Path) -> bool) {
        let Self { by_path, by_identity } = self;
        by_path.retain(|path, identity| {
            let is_kept = is_kept(path);
            if !is_kept {
                by_identity.remove(identity);
            }
            is_kept
        });
    }
}

/// What matters of what happens in the watched folders, by their paths.
#[derive(Clone, Default)]
struct Interests(Arc<Mutex<HashMap<PathBuf, Interest>>>);

#[derive(Default)]
struct Interest {
    /// Files that belong on the Volume.
    has_files: bool,
    /// Links, and what leads to their targets.
    entries: HashSet<OsString>,
}

impl Interests {
    fn lock(&self) -> MutexGuard<'_, HashMap<PathBuf, Interest>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an event can mean that a file which belongs on the Volume has changed.
    fn is_news(&self, event: &Event) -> bool {
        if event.need_rescan() || event.paths.is_empty() {
            return true;
        }
        if let EventKind::Access(access) = event.kind
            && access != AccessKind::Close(AccessMode::Write)
        {
            return false;
        }
        let interests = self.lock();
        let is_of_use = |path: &PathBuf| {
            let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return false };
            interests.get(folder).is_some_and(|it| {
                it.entries.contains(name) || it.has_files && rules::is_of_use(&name.to_string_lossy())
            })
        };
        event.paths.iter().any(|path| interests.get(path).is_some_and(|it| it.has_files) || is_of_use(path))
    }
}

impl Visitor for Folders {
    fn folder(&mut self, path: &Path, identity: Identity) {
        self.watch(path, identity, |interest| interest.has_files = true);
    }

    fn step(&mut self, folder: &Path, name: &OsStr) {
        // What is not there, its own folder tells of.
        let Ok(metadata) = folder.metadata() else { return };
        let name = name.to_owned();
        self.watch(folder, identity(&metadata), move |interest| {
            interest.entries.insert(name);
        });
    }
}

fn is_absence(error: &notify::Error) -> bool {
    match &error.kind {
        notify::ErrorKind::PathNotFound => true,
        notify::ErrorKind::Io(error) => {
            matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory)
        }
        _ => false,
    }
}

/// What to tell the user when the system refuses to tell of changes.
fn warning(error: &notify::Error) -> String {
    /// Of the system: "too many open files", which here are instances of inotify.
    const EMFILE: i32 = 24;
    let raise = |limit: &str| {
        format!(
            "the system's limit {limit} is used up, so the folder is looked at every few seconds; \
             `sudo sysctl {limit}=524288` raises it until the next boot"
        )
    };
    match &error.kind {
        notify::ErrorKind::MaxFilesWatch => raise("fs.inotify.max_user_watches"),
        notify::ErrorKind::Io(error) if error.raw_os_error() == Some(EMFILE) => raise("fs.inotify.max_user_instances"),
        _ => format!("the system does not report changes ({error}), so the folder is scanned every few seconds"),
    }
}

#[cfg(test)]
mod tests {
    use notify::event::{CreateKind, Flag};

    use super::*;

    #[test]
    fn only_what_may_have_changed_a_file_is_news() {
        let interests = Interests::default();
        let files = Interest { has_files: true, ..Interest::default() };
        let entries = Interest { entries: ["d".into()].into(), ..Interest::default() };
        interests.lock().extend([("/d/.dags".into(), files), ("/".into(), entries)]);
        let is_news = |kind: EventKind, path: &str| interests.is_news(&Event::new(kind).add_path(path.into()));
        let written = EventKind::Access(AccessKind::Close(AccessMode::Write));
        assert!(is_news(written, "/d/.dags/etl.py") && is_news(EventKind::Create(CreateKind::Folder), "/d/.dags/new"));
        assert!(is_news(EventKind::Any, "/d/.dags"), "the folder itself");
        assert!(!is_news(EventKind::Access(AccessKind::Open(AccessMode::Any)), "/d/.dags/etl.py"));
        assert!(!is_news(written, "/d/.dags/.etl.py.swp") && !is_news(EventKind::Any, "/d/.dags/etl.py~"));
        assert!(is_news(EventKind::Any, "/d"), "on the way to the folder");
        assert!(!is_news(EventKind::Any, "/e") && !is_news(EventKind::Any, "/d/etl.py"), "beside the way");
    }

    #[test]
    fn lost_events_are_news() {
        let overflow = Event::new(EventKind::Other).set_flag(Flag::Rescan);
        assert!(Interests::default().is_news(&overflow));
    }

    #[test]
    fn a_used_up_limit_is_named_with_its_remedy() {
        let watches = warning(&notify::Error::new(notify::ErrorKind::MaxFilesWatch));
        assert!(watches.contains("sysctl fs.inotify.max_user_watches=524288"), "{watches}");
        let instances = warning(&notify::Error::io(std::io::Error::from_raw_os_error(24)));
        assert!(instances.contains("sysctl fs.inotify.max_user_instances"), "{instances}");
    }

    #[test]
    fn without_the_system_the_folder_is_polled() {
        let (alarm, _receiver) = watch::channel(Instant::now());
        let mut folders = Folders::new(alarm, PathBuf::from("/d"));
        folders.open();
        assert_eq!(folders.warning(), None);
        folders.give_up(&notify::Error::new(notify::ErrorKind::MaxFilesWatch));
        assert!(folders.watcher.is_none() && folders.warning().is_some());
        // A look goes on without it.
        folders.folder(Path::new("/d"), (1, 1, (1, 0)));
        folders.finish(true);
    }

    /// Looks at all folders, as a round does.
    fn look(folders: &mut Folders, rings: &mut watch::Receiver<Instant>) {
        rings.borrow_and_update();
        folders.begin();
        let root = folders.root.clone();
        super::super::scan::scan(&root, &rules::Rules::default(), folders).expect("a scan");
        folders.finish(true);
    }

    async fn hears(rings: &mut watch::Receiver<Instant>, folder: &Path, what: &str) {
        timeout(Duration::from_secs(10), rings.changed()).await.expect(what).expect("eyes");
        settle(rings, folder).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_folder_with_two_names_is_watched_by_the_one_that_is_left() {
        let (folder, elsewhere) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let (root, deep) = (folder.path(), elsewhere.path().join("deep"));
        std::fs::create_dir(&deep).expect("a folder");
        for name in ["one", "two"] {
            std::os::unix::fs::symlink(elsewhere.path(), root.join(name)).expect("a link");
        }
        let (alarm, mut rings) = watch::channel(Instant::now());
        let mut folders = Folders::new(alarm, root.to_owned());
        folders.open();
        look(&mut folders, &mut rings);
        for removed in ["one", "two"] {
            std::fs::remove_file(root.join(removed)).expect("removed");
            hears(&mut rings, root, "news of the removal").await;
            look(&mut folders, &mut rings);
            if removed == "one" {
                std::fs::write(deep.join("etl.py"), removed).expect("a file");
                hears(&mut rings, root, "news of a file by its other name").await;
                look(&mut folders, &mut rings);
            }
        }
    }

    /// Whoever comes back to its place is watched there, be it the same folder as before.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_folder_that_was_away_is_watched_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let sub = folder.path().join("sub/deep");
        std::fs::create_dir_all(&sub).expect("folders");
        let (alarm, mut rings) = watch::channel(Instant::now());
        let mut folders = Folders::new(alarm, folder.path().to_owned());
        folders.open();
        look(&mut folders, &mut rings);
        let move_away_and_back = || {
            let (here, away) = (folder.path().join("sub"), folder.path().join("away"));
            std::fs::rename(&here, &away).and_then(|()| std::fs::rename(&away, &here)).expect("moved");
        };
        let make_anew = || {
            std::fs::remove_dir_all(folder.path().join("sub"))
                .and_then(|()| std::fs::create_dir_all(&sub))
                .expect("made");
        };
        for change in [&move_away_and_back as &dyn Fn(), &make_anew] {
            change();
            hears(&mut rings, folder.path(), "news of the change").await;
            look(&mut folders, &mut rings);
            std::fs::write(sub.join("etl.py"), "").expect("a file");
            hears(&mut rings, folder.path(), "news of a file").await;
            look(&mut folders, &mut rings);
        }
    }

    /// Whatever changes on the way to a file is news, and a save there afterwards is, too.
    #[tokio::test(flavor = "multi_thread")]
    async fn what_links_lead_to_is_watched() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |path: &str| folder.path().join(path);
        let write = |path: &str| {
            std::fs::create_dir_all(at(path).parent().expect("a folder")).expect("folders");
            std::fs::write(at(path), "").expect("a file");
        };
        let link = |target: &str, path: &str| {
            // By rename, as all do who switch links under load.
            std::os::unix::fs::symlink(target, at("new")).expect("a link");
            std::fs::rename(at("new"), at(path)).expect("switched");
        };
        for path in
            ["releases/7/etl.py", "releases/7/..data_1/map.py", "releases/8/etl.py", "releases/8/..data_1/map.py"]
        {
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
        let (alarm, mut rings) = watch::channel(Instant::now());
        let mut folders = Folders::new(alarm, at("dags"));
        folders.open();
        look(&mut folders, &mut rings);
        let changes: [(&str, &dyn Fn()); 15] = [
            ("a link on the way to the root", &|| link("releases/8", "current")),
            ("a save in the new root", &|| write("releases/8/etl.py")),
            ("a map", &|| link("..data_2", "releases/8/..data")),
            ("a save in the new map", &|| write("releases/8/..data_2/map.py")),
            ("a link on the way to a folder", &|| link("2", "packages/latest")),
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
            rings.borrow_and_update();
            change();
            hears(&mut rings, folder.path(), what).await;
            if what != "a folder above the root that is away" {
                look(&mut folders, &mut rings);
            }
        }
        // What is not behind a link any more is of no interest.
        for path in ["releases/old/etl.py", "packages/1/x.py", "releases/old/..data_1/map.py", "files/two.py"] {
            write(path);
        }
        let heard = timeout(QUIET, rings.changed()).await;
        assert!(heard.is_err(), "news of files that are not followed");
    }

    /// A folder that is too large is not watched, but its link is.
    #[tokio::test(flavor = "multi_thread")]
    async fn after_a_scan_that_failed_only_the_way_is_watched() {
        let folder = tempfile::tempdir().expect("a folder");
        let (root, large) = (folder.path().join("dags"), folder.path().join("large"));
        std::fs::create_dir(&root).and_then(|()| std::fs::create_dir(&large)).expect("folders");
        std::os::unix::fs::symlink(&large, root.join("large")).expect("a link");
        let (alarm, mut rings) = watch::channel(Instant::now());
        let mut folders = Folders::new(alarm, root.clone());
        folders.open();
        folders.begin();
        super::super::scan::scan(&root, &rules::Rules::default(), &mut folders).expect("a scan");
        folders.finish(false);
        rings.borrow_and_update();
        std::fs::write(large.join("etl.py"), "").expect("a file");
        assert!(timeout(QUIET, rings.changed()).await.is_err(), "news of a file in there");
        std::fs::remove_file(root.join("large")).expect("removed");
        hears(&mut rings, &root, "news of the link").await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_waited_for_within_limits() {
        let folder = tempfile::tempdir().expect("a folder");
        let (alarm, mut receiver) = watch::channel(Instant::now());
        let started = Instant::now();
        settle(&mut receiver, folder.path()).await;
        assert_eq!(started.elapsed(), QUIET);

        alarm.send_replace(Instant::now());
        let ringing = tokio::spawn(async move {
            loop {
                alarm.send_replace(Instant::now());
                tokio::time::sleep(QUIET / 2).await;
            }
        });
        let started = Instant::now();
        settle(&mut receiver, folder.path()).await;
        assert!((LONGEST_UNREST..LONGEST_UNREST + QUIET).contains(&started.elapsed()), "{:?}", started.elapsed());
        ringing.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn git_is_waited_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let (dags, lock) = (folder.path().join("dags"), folder.path().join(".git/index.lock"));
        for path in [&dags, &folder.path().join(".git")] {
            std::fs::create_dir(path).expect("a folder");
        }
        std::fs::write(&lock, "").expect("a lock");
        let (_alarm, mut receiver) = watch::channel(Instant::now());
        let started = Instant::now();
        let unlock = async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            std::fs::remove_file(&lock).expect("removed");
        };
        let settled = async {
            settle(&mut receiver, &dags).await;
            started.elapsed()
        };
        let (waited, ()) = tokio::join!(settled, unlock);
        assert!((Duration::from_secs(5)..Duration::from_secs(6)).contains(&waited), "{waited:?}");
    }
}
