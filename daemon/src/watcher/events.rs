//! Learning that something changed. Which file it was is of no interest: whoever is woken looks at the whole folder, so
//! that lost, repeated and late events are all the same.

use std::{
    collections::{HashMap, HashSet},
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
    scan::{Identity, Visitor},
};

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

/// Whether git is changing the files of the repository that the folder is in.
fn is_locked_by_git(root: &Path) -> bool {
    root.ancestors().map(|folder| folder.join(".git")).find(|git| git.exists()).is_some_and(|git| {
        // In a worktree it is a file that names the place.
        let place = std::fs::read_to_string(&git).ok().and_then(|text| {
            let place = text.strip_prefix("gitdir:")?.trim().to_owned();
            Some(git.with_file_name(place))
        });
        place.unwrap_or(git).join("index.lock").exists()
    })
}

/// The system's eyes on the folders of one watch.
pub struct Folders {
    alarm: Alarm,
    root: PathBuf,
    watcher: Option<RecommendedWatcher>,
    /// Why there is none.
    warning: Option<String>,
    /// When the system refused.
    refused_at: Option<Instant>,
    watched: HashMap<PathBuf, Identity>,
    gone: Gone,
    /// What the look under way has seen.
    seen: HashMap<PathBuf, Identity>,
}

impl Folders {
    /// Eyes that are closed: [`Folders::open`] opens them.
    pub fn new(alarm: Alarm, root: PathBuf) -> Self {
        let (watched, seen, gone) = (HashMap::new(), HashMap::new(), Gone::default());
        Self { alarm, root, watcher: None, warning: None, refused_at: None, watched, gone, seen }
    }

    /// Asks the system to tell of changes. What it does not want to tell is looked for again and again, with a warning.
    pub fn open(&mut self) {
        if self.watcher.is_some() || self.refused_at.is_some_and(|at| at.elapsed() < REFUSAL_PERIOD) {
            return;
        }
        let (alarm, root, gone) = (self.alarm.clone(), self.root.clone(), self.gone.clone());
        let handler = move |event: notify::Result<Event>| {
            let is_news = event.map_or(true, |event| {
                gone.note(&event);
                is_news(&event, &root)
            });
            if is_news {
                alarm.send_replace(Instant::now());
            }
        };
        self.watched.clear();
        self.refused_at = None;
        match RecommendedWatcher::new(handler, notify::Config::default()) {
            Ok(watcher) => self.watcher = Some(watcher),
            Err(error) => self.give_up(&error),
        }
    }

    /// Before a look: what was removed is not watched any more, also if the same folder is back at its place.
    pub fn begin(&mut self) {
        let gone = std::mem::take(&mut *self.gone.lock());
        if gone.all {
            self.watched.clear();
        } else if !gone.paths.is_empty() {
            let is_gone = |path: &Path| path.ancestors().any(|part| gone.paths.contains(part));
            let ended = self.watched.iter().filter(|(path, _)| is_gone(path)).map(|(_, identity)| *identity);
            // The system has stopped to watch them, by whatever other names they have.
            let ended: HashSet<Identity> = ended.collect();
            self.watched.retain(|path, identity| !is_gone(path) && !ended.contains(identity));
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

    /// After a look: watches no more what is gone.
    pub fn finish(&mut self) {
        let seen = std::mem::take(&mut self.seen);
        if self.watcher.is_some() && self.warning.take().is_some() {
            tracing::info!(watch.directory = %self.root.display(), "the system tells of changes again");
        }
        if let Some(watcher) = &mut self.watcher {
            for gone in self.watched.keys().filter(|path| !seen.contains_key(*path)) {
                // Mostly the system has stopped by itself.
                let _ = watcher.unwatch(gone);
            }
            self.watched = seen;
        }
    }

    fn watch(&mut self, path: &Path, identity: Identity) {
        let Some(watcher) = &mut self.watcher else { return };
        if self.seen.insert(path.to_owned(), identity).is_some() || self.watched.get(path) == Some(&identity) {
            return;
        }
        // The system knows a folder by what it is, and would stop watching it by its new name together with the old one.
        let by_other_name = |(other, known): &(&PathBuf, &Identity)| **known == identity && *other != path;
        if self.seen.iter().any(|seen| by_other_name(&seen)) {
            return;
        }
        let old: Vec<_> = self.watched.iter().filter(by_other_name).map(|(other, _)| other.clone()).collect();
        for old in old.iter().map(PathBuf::as_path).chain([path]) {
            if self.watched.remove(old).is_some() {
                let _ = watcher.unwatch(old);
            }
        }
        match watcher.watch(path, RecursiveMode::NonRecursive) {
            Ok(()) => drop(self.watched.insert(path.to_owned(), identity)),
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

impl Visitor for Folders {
    fn folder(&mut self, path: &Path, identity: Identity) {
        self.watch(path, identity);
    }

    /// A change of a file elsewhere is none of the folder with the link.
    fn linked_file(&mut self, path: &Path, identity: Identity) {
        self.watch(path, identity);
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
        _ => format!("the system does not tell of changes ({error}), so the folder is looked at every few seconds"),
    }
}

/// Whether an event can mean that a file which belongs on the Volume has changed.
fn is_news(event: &Event, root: &Path) -> bool {
    if event.need_rescan() || event.paths.is_empty() {
        return true;
    }
    if let EventKind::Access(access) = event.kind
        && access != AccessKind::Close(AccessMode::Write)
    {
        return false;
    }
    let is_of_use = |path: &PathBuf| match path.file_name() {
        Some(name) if path != root => rules::is_of_use(&name.to_string_lossy()),
        _ => true,
    };
    event.paths.iter().any(is_of_use)
}

#[cfg(test)]
mod tests {
    use notify::event::{CreateKind, Flag};

    use super::*;

    #[test]
    fn only_what_may_have_changed_a_file_is_news() {
        let root = Path::new("/d/.dags");
        let is_news = |kind: EventKind, path: &str| is_news(&Event::new(kind).add_path(path.into()), root);
        let written = EventKind::Access(AccessKind::Close(AccessMode::Write));
        assert!(is_news(written, "/d/.dags/etl.py") && is_news(EventKind::Create(CreateKind::Folder), "/d/.dags/new"));
        assert!(is_news(EventKind::Any, "/d/.dags"), "the folder itself");
        assert!(!is_news(EventKind::Access(AccessKind::Open(AccessMode::Any)), "/d/.dags/etl.py"));
        assert!(!is_news(written, "/d/.dags/.etl.py.swp") && !is_news(EventKind::Any, "/d/.dags/etl.py~"));
    }

    #[test]
    fn lost_events_are_news() {
        let overflow = Event::new(EventKind::Other).set_flag(Flag::Rescan);
        assert!(is_news(&overflow, Path::new("/d")));
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
        folders.finish();
    }

    /// Looks at all folders, as a round does.
    fn look(folders: &mut Folders, rings: &mut watch::Receiver<Instant>) {
        rings.borrow_and_update();
        folders.begin();
        let root = folders.root.clone();
        super::super::scan::scan(&root, &rules::Patterns::new(&[]).expect("patterns"), folders).expect("a scan");
        folders.finish();
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
        tokio::join!(settle(&mut receiver, &dags), unlock);
        assert!(started.elapsed() < Duration::from_secs(6), "{:?}", started.elapsed());
        assert!(started.elapsed() >= Duration::from_secs(5), "{:?}", started.elapsed());
    }
}
