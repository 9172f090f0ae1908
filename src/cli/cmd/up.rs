//! `cachectl up`: starts what is missing of a local cluster and waits until every slot serves and has its backup.

use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::foreground::Stop;
use super::{Ctx, down, foreground, tui};
use crate::cli::args::{self, TuiArgs, UpArgs};
use crate::cli::cluster_file::{BACKUPS, ClusterFile, MASTERS, NODES};
use crate::cli::context::{self, DEFAULT_NAME, Said, Target};
use crate::cli::error::{CliError, CmdResult, Exit};
use crate::cli::local::lock::{LOCK_WAIT, Lock};
use crate::cli::local::member::{self, check_ports, free, port_taken};
use crate::cli::local::ports::{self, Claim};
use crate::cli::local::spawn::{self, Spawned};
use crate::cli::local::state::{Home, Member, Members, Role, Running};
use crate::cli::local::wait::Waiter;
use crate::cli::local::{inherit, left};
use crate::cli::output::{Out, Tone};
use crate::cli::progress::Progress;
use crate::cli::units::show_size;
use crate::node::config::Eviction;
use crate::proto::status::{Health, Status};

/// `--memory` unless said otherwise, bytes.
const MEMORY: u64 = 256 << 20;
/// How many blocks of ports are tried when others take ports between the look and the start.
const BLOCKS_TRIED: usize = 5;

/// What was asked for, flags and file together.
#[derive(Debug, Clone, PartialEq)]
struct Wish {
    name: String,
    masters: Option<usize>,
    nodes: Option<usize>,
    backups: Option<u8>,
    memory: Option<u64>,
    eviction: Option<Eviction>,
    base_port: Option<u16>,
    zones: Vec<String>,
}

/// Runs it.
pub async fn run(ctx: &Ctx, args: &UpArgs) -> CmdResult {
    inherit::close_on_exec();
    let begun = Instant::now();
    let wish = wish(ctx, args)?;
    let home = Home::of(&wish.name)?;
    // An `up` before this one may take its whole wait, and then there is nothing left to do.
    let lock = Lock::take(&home.lock_path(), "up", &ctx.out, args.wait.max(LOCK_WAIT))?;
    let existed = home.holds_more_than_a_lock();
    let result = match home.create() {
        Ok(()) => bring_up(ctx, args, &wish, &home, begun).await,
        Err(e) => Err(e),
    };
    // A first `up` that failed leaves nothing: no record says what it could go on with.
    if result.is_err() && !existed && matches!(home.members(), Ok(None)) {
        let _ = std::fs::remove_dir_all(&home.dir);
    }
    drop(lock);
    let (exit, children) = result?;
    if exit != Exit::Done {
        // In the foreground Ctrl-C is `down`, also before all is well.
        return if args.foreground { down::stop(ctx, &home, false).await } else { Ok(exit) };
    }
    if args.foreground {
        return foreground::run(ctx, &home, children).await;
    }
    if args.tui {
        spawn::reap(children);
        // The cluster that was just started, whatever the words of this command line would mean to others.
        let target = Target { name: home.name.clone(), masters: Vec::new(), said: Said::Flag };
        let exit = tui::run(&Ctx { target, ..ctx.clone() }, &TuiArgs::default()).await?;
        ctx.out.say(&format!("cluster {} goes on running; `cachectl down` stops it", home.name));
        return Ok(exit);
    }
    Ok(Exit::Done)
}

fn wish(ctx: &Ctx, args: &UpArgs) -> Result<Wish, CliError> {
    let file = match &args.config {
        Some(path) => ClusterFile::read(path)?,
        None => ClusterFile::default(),
    };
    if !file.hosts.is_empty() {
        return Err(CliError::usage("the file describes a cluster on many hosts, and `up` starts one on this machine")
            .hint("`cachectl config check FILE` prints what to start on each host; docs/deploy.md says how"));
    }
    let t = &ctx.target;
    if t.said == Said::Flag && !t.masters.is_empty() {
        return Err(CliError::usage("`up` starts a local cluster; --masters-addr means one that runs elsewhere")
            .hint("leave --masters-addr away, or use --name to name the local cluster"));
    }
    // `demo` unless said: what the last `up` was called must not decide what this one is.
    let said = matches!(t.said, Said::Flag | Said::Env).then(|| t.name.clone());
    let in_user_file = (t.said == Said::File).then(|| t.name.clone());
    let memory = file.memory.as_deref().map(args::parse_memory).transpose().map_err(CliError::usage)?;
    Ok(Wish {
        name: said.or(file.name).or(in_user_file).unwrap_or_else(|| DEFAULT_NAME.into()),
        masters: args.masters.or(file.masters),
        nodes: args.nodes.or(file.nodes),
        backups: args.backups.or(file.backups),
        memory: args.memory.or(memory),
        eviction: args.eviction.or(file.eviction),
        base_port: args.base_port.or(file.base_port),
        zones: file.zones,
    })
}

/// Starts, waits, tells. With the children, for those who stay.
async fn bring_up(
    ctx: &Ctx,
    args: &UpArgs,
    wish: &Wish,
    home: &Home,
    begun: Instant,
) -> Result<(Exit, Vec<Spawned>), CliError> {
    let out = &ctx.out;
    let program = spawn::this_program();
    let recorded = home.members()?;
    let fresh = recorded.is_none();
    let mut running = home.running()?;
    let mut bases = Bases::new(home, wish);
    let mut tried = 0;
    loop {
        tried += 1;
        let (members, claim) = match &recorded {
            Some(m) => {
                if tried == 1 {
                    say_differences(out, m, wish);
                }
                (left::note(home, m, &running).await?, None)
            }
            None => {
                let (base, claim) = bases.next(out)?;
                let members = compose(base, wish, out, tried == 1);
                home.put_members(&members)?;
                (members, claim)
            }
        };
        let missing: Vec<&Member> =
            members.active().filter(|m| !running.process(&m.id).is_some_and(|p| p.identity.alive())).collect();
        let outcome = start(ctx, args, home, &members, &missing, &mut running, &program).await;
        drop(claim);
        match outcome {
            Ok(Outcome { done: true, children, status }) => {
                context::choose_current(&home.name)?;
                tell(out, home, &members, &missing, &running, status.as_ref(), begun)?;
                return Ok((Exit::Done, children));
            }
            Ok(_) => {
                // What is said to look at it means this cluster.
                context::choose_current(&home.name)?;
                return Ok((Exit::Detached, Vec::new()));
            }
            Err(Trouble::Waited(e)) => {
                context::choose_current(&home.name)?;
                return Err(e);
            }
            Err(Trouble::Failed(e)) => {
                if fresh {
                    // Nothing of a first start that failed is worth keeping: also not Raft logs of masters that never had nodes.
                    forget(home, &members);
                    let raced = members.active().any(|m| !free(m));
                    if raced && wish.base_port.is_none() && tried < BLOCKS_TRIED {
                        out.say("another process took a port meanwhile; trying the next block");
                        continue;
                    }
                }
                return Err(e);
            }
        }
    }
}

/// Removes what a first start wrote.
fn forget(home: &Home, members: &Members) {
    home.remove_running();
    home.remove_members();
    for m in members.active() {
        let _ = std::fs::remove_dir_all(home.data(&m.id));
    }
}

/// A child that met the Ctrl-C meant for `up` has ended by then.
const INTERRUPTED_WITHIN: Duration = Duration::from_millis(50);

/// Starts children again that had not left the terminal's group, before their program began, when Ctrl-C came.
fn start_interrupted(
    home: &Home,
    members: &Members,
    missing: &[&Member],
    running: &mut Running,
    program: &Path,
    children: &mut [Spawned],
) -> Result<(), CliError> {
    for (child, m) in children.iter_mut().zip(missing) {
        if child.interrupted() {
            *child = spawn::spawn(program, home, members, m, false)?;
            running.put(child.process.clone());
            home.put_running(running)?;
        }
    }
    Ok(())
}

/// How a start came out, when nothing failed.
struct Outcome {
    /// The cluster is ok; false after Ctrl-C.
    done: bool,
    children: Vec<Spawned>,
    status: Option<Status>,
}

/// Why it is no success.
enum Trouble {
    /// What was started was ended again.
    Failed(CliError),
    /// Not ok in time; what was started runs on.
    Waited(CliError),
}

async fn start(
    ctx: &Ctx,
    args: &UpArgs,
    home: &Home,
    members: &Members,
    missing: &[&Member],
    running: &mut Running,
    program: &Path,
) -> Result<Outcome, Trouble> {
    let out = &ctx.out;
    for m in missing {
        check_ports(m, running).map_err(Trouble::Failed)?;
    }
    // From here on Ctrl-C is ours: a child that was started and not recorded would be lost.
    let mut stop = Stop::watch().map_err(Trouble::Failed)?;
    if !missing.is_empty() {
        out.say(&starting(home, members, missing, running));
    }
    let mut children: Vec<Spawned> = Vec::new();
    for m in missing {
        let started = spawn::spawn(program, home, members, m, false).and_then(|child| {
            running.put(child.process.clone());
            children.push(child);
            home.put_running(running)
        });
        if let Err(e) = started {
            undo(home, running, &mut children);
            return Err(Trouble::Failed(e));
        }
    }
    home.begun(missing).map_err(Trouble::Failed)?;
    let progress = Progress::spinner(out);
    let mut waiter = Waiter::new(members).with_started(missing.iter().map(|m| m.id.as_str()));
    let deadline = Instant::now() + args.wait;
    let failed = loop {
        let ok = tokio::select! {
            ok = waiter.poll() => ok,
            () = stop.asked() => {
                if !args.foreground {
                    tokio::time::sleep(INTERRUPTED_WITHIN).await;
                    if let Err(e) = start_interrupted(home, members, missing, running, program, &mut children) {
                        break e;
                    }
                    drop(progress);
                    out.say(&format!(
                        "let go of cluster {}, which goes on starting; `cachectl status` looks at it, `cachectl down` stops it",
                        home.name
                    ));
                }
                return Ok(Outcome { done: false, children, status: None });
            }
        };
        // Looked at also when all seems well: what answered may have been somebody else's cluster on the same ports.
        if let Some(e) = spawn::first_crash(&mut children) {
            break e;
        }
        if ok {
            drop(progress);
            return Ok(Outcome { done: true, children, status: waiter.status().cloned() });
        }
        if Instant::now() >= deadline {
            drop(progress);
            let e = CliError::timed_out(format!(
                "cluster {} is not ok after {:?}: {}",
                home.name,
                args.wait,
                waiter.missing()
            ))
            .hint("it goes on starting: look at `cachectl status` and `cachectl logs`, or end it with `cachectl down`");
            return Err(Trouble::Waited(e));
        }
        progress.show(&waiter.progress());
    };
    drop(progress);
    undo(home, running, &mut children);
    Err(Trouble::Failed(failed))
}

/// Ends what this command started, and nothing else.
fn undo(home: &Home, running: &mut Running, children: &mut Vec<Spawned>) {
    for c in children.iter_mut() {
        c.kill();
    }
    running.processes.retain(|p| !children.iter().any(|c| c.process.id == p.id));
    children.clear();
    if running.processes.is_empty() {
        home.remove_running();
    } else {
        // The processes are gone either way; a record that cannot be written is caught by their start times.
        let _ = home.put_running(running);
    }
}

/// Candidates for the first port, from the first block on, without those of other recorded clusters.
struct Bases {
    given: Option<u16>,
    left: std::vec::IntoIter<u16>,
    needed: (usize, usize),
}

impl Bases {
    fn new(home: &Home, wish: &Wish) -> Self {
        let others: Vec<u16> = Home::all()
            .into_iter()
            .filter(|h| h.name != home.name)
            .filter_map(|h| Some(h.members().ok()??.base_port))
            .collect();
        let left: Vec<u16> = match wish.base_port {
            Some(base) => vec![base],
            None => ports::bases().filter(|b| !others.iter().any(|o| ports::overlap(*b, *o))).collect(),
        };
        Self {
            given: wish.base_port,
            left: left.into_iter(),
            needed: (wish.masters.unwrap_or(MASTERS), wish.nodes.unwrap_or(NODES)),
        }
    }

    /// The next block in which every needed port is free.
    fn next(&mut self, out: &Out) -> Result<(u16, Option<Claim>), CliError> {
        let mut told = false;
        while let Some(base) = self.left.next() {
            let taken = self.taken(base);
            let claim = Claim::take(base);
            match (taken, &claim, self.given) {
                (None, Some(_), _) | (None, None, Some(_)) => return Ok((base, claim)),
                (Some(port), _, Some(_)) => return Err(port_taken(port)),
                (Some(port), _, None) if !told => {
                    told = true;
                    out.say(&format!(
                        "port {port} is taken by {}; trying the next block of {} ports",
                        ports::blame(port),
                        ports::BLOCK
                    ));
                }
                _ => {}
            }
        }
        Err(CliError::failed("NO_PORTS", "no block of ports is free")
            .hint("`cachectl ls` shows the clusters that hold them"))
    }

    fn taken(&self, base: u16) -> Option<u16> {
        let masters = (1..=self.needed.0).map(|i| ports::master(base, i));
        let nodes = (1..=self.needed.1).flat_map(|i| [ports::node(base, i), ports::node(base, i) + ports::PEER_OFFSET]);
        masters.chain(nodes).find(|p| !ports::is_free(*p))
    }
}

/// The members of a new cluster.
fn compose(base: u16, wish: &Wish, out: &Out, aloud: bool) -> Members {
    let masters = wish.masters.unwrap_or(MASTERS);
    let nodes = wish.nodes.unwrap_or(NODES);
    let mut backups = wish.backups.unwrap_or(BACKUPS);
    if nodes == 1 && backups > 0 {
        backups = 0;
        if aloud {
            out.warn("one node has nowhere to keep backups: the cluster runs without them, and what it holds dies with the node");
        }
    } else if backups == 0 && aloud {
        out.warn("without backups what a node holds dies with it");
    }
    let mut members = Members::new(&wish.name, base, backups, wish.memory.unwrap_or(MEMORY));
    members.eviction = wish.eviction.unwrap_or_default();
    members.members.extend((1..=masters).map(|i| member::master(base, i)));
    for i in 1..=nodes {
        let zone = if wish.zones.is_empty() { "" } else { &wish.zones[(i - 1) % wish.zones.len()] };
        members.members.push(member::node(&format!("n{i}"), base, i, zone));
    }
    members
}

/// Recorded members win over flags; the person should know.
fn say_differences(out: &Out, recorded: &Members, wish: &Wish) {
    let mut ignored = Vec::new();
    let mut differ = |flag: &str, asked: Option<String>, is: String| {
        if let Some(asked) = asked.filter(|a| *a != is) {
            ignored.push(format!("{flag} {asked} (it has {is})"));
        }
    };
    let count = |role| recorded.of(role).count().to_string();
    differ("--masters", wish.masters.map(|n| n.to_string()), count(Role::Master));
    differ("--nodes", wish.nodes.map(|n| n.to_string()), count(Role::Node));
    // One node means no backups, whatever was asked for.
    if recorded.of(Role::Node).count() > 1 {
        differ("--backups", wish.backups.map(|n| n.to_string()), recorded.backups.to_string());
    }
    differ("--memory", wish.memory.map(show_size), show_size(recorded.memory));
    differ("--eviction", wish.eviction.map(|e| e.to_string()), recorded.eviction.to_string());
    differ("--base-port", wish.base_port.map(|n| n.to_string()), recorded.base_port.to_string());
    if !ignored.is_empty() {
        out.warn(&format!(
            "cluster {} exists already and stays as it is: {} ignored; `cachectl down --purge` forgets it",
            recorded.name,
            ignored.join(", ")
        ));
    }
}

fn starting(home: &Home, members: &Members, missing: &[&Member], running: &Running) -> String {
    let count = |role| missing.iter().filter(|m| m.role == role).count();
    let what = |n: usize, word: &str| match n {
        1 => format!("1 {word}"),
        n => format!("{n} {word}s"),
    };
    if missing.len() == members.active().count() {
        let gone = running.processes.iter().any(|p| missing.iter().any(|m| m.id == p.id));
        let note = if gone { " (its processes were gone)" } else { "" };
        return format!(
            "starting cluster {}: {}, {}{note}",
            home.name,
            what(count(Role::Master), "master"),
            what(count(Role::Node), "node")
        );
    }
    let ids: Vec<&str> = missing.iter().map(|m| m.id.as_str()).collect();
    format!("cluster {} is already running; starting what is missing: {}", home.name, ids.join(", "))
}

/// What `up` prints: where everything is and what to do next.
fn tell(
    out: &Out,
    home: &Home,
    members: &Members,
    started: &[&Member],
    running: &Running,
    status: Option<&Status>,
    begun: Instant,
) -> Result<(), CliError> {
    let leader = status.and_then(|s| s.leader.clone());
    let nodes: Vec<&Member> = members.of(Role::Node).collect();
    let client = nodes.first().map_or("", |n| n.addr.as_str());
    let port = client.rsplit_once(':').map_or("", |(_, p)| p);
    let redis_cli = format!("redis-cli -c -p {port}");
    let redis_url = format!("redis://{client}");
    let elapsed_ms = begun.elapsed().as_millis() as u64;
    if out.json() {
        #[derive(Serialize)]
        struct Doc<'a> {
            cluster: &'a str,
            state: Option<crate::proto::status::Health>,
            already_running: bool,
            started: Vec<&'a str>,
            masters: Vec<&'a Member>,
            nodes: Vec<&'a Member>,
            processes: &'a [crate::cli::local::state::Process],
            leader: Option<String>,
            backups: u8,
            base_port: u16,
            redis_cli: String,
            redis_url: String,
            state_dir: String,
            elapsed_ms: u64,
        }
        return out.document(&Doc {
            cluster: &home.name,
            state: status.map(|s| s.state),
            already_running: started.len() < members.active().count(),
            started: started.iter().map(|m| m.id.as_str()).collect(),
            masters: members.of(Role::Master).collect(),
            nodes,
            processes: &running.processes,
            leader,
            backups: members.backups,
            base_port: members.base_port,
            redis_cli,
            redis_url,
            state_dir: home.dir.display().to_string(),
            elapsed_ms,
        });
    }
    let list = |role: Role, mark: &dyn Fn(&Member) -> String| {
        members.of(role).map(|m| format!("{} {}{}", m.id, m.addr, mark(m))).collect::<Vec<_>>()
    };
    let masters =
        list(Role::Master, &|m| if Some(&m.id) == leader.as_ref() { " (leads)".into() } else { String::new() });
    let nodes = list(Role::Node, &|m| if m.zone.is_empty() { String::new() } else { format!(" zone {}", m.zone) });
    let word = if started.is_empty() { "is already running and" } else { "is" };
    let mut text = format!(
        "cluster {} {word} {}: every slot serves{} ({:.2} s)\n\n",
        out.paint(Tone::Strong, &home.name),
        match status.map_or(Health::Ok, |s| s.state) {
            Health::Ok => out.paint(Tone::Good, "ok"),
            // All else was waited for.
            _ => out.paint(Tone::Warn, "degraded"),
        },
        match (members.backups, members.of(Role::Node).count()) {
            (0, _) => ", without backups",
            (_, 1) => "; one node has nowhere to keep backups",
            _ => " and has its backup",
        },
        elapsed_ms as f64 / 1000.0
    );
    for (title, lines) in [("masters", masters), ("nodes", nodes)] {
        for (i, line) in lines.iter().enumerate() {
            text.push_str(&format!("  {:<8} {line}\n", if i == 0 { title } else { "" }));
        }
    }
    text.push_str(&format!("\n  {redis_cli}\n  export REDIS_URL={redis_url}\n"));
    out.raw(text.as_bytes())?;
    out.say("\nnext: `cachectl status`, `cachectl tui`, `cachectl set hello world`, `cachectl down`");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::{Color, Format};

    fn quiet() -> Out {
        Out::new(Format::Table, Color::Never, true, false)
    }

    fn wish() -> Wish {
        Wish {
            name: "x".into(),
            masters: None,
            nodes: None,
            backups: None,
            memory: None,
            eviction: None,
            base_port: None,
            zones: vec!["a".into(), "b".into()],
        }
    }

    #[test]
    fn members_get_names_ports_and_zones() {
        let m = compose(7100, &wish(), &quiet(), false);
        let all: Vec<String> =
            m.members.iter().map(|m| format!("{} {} {:?} {}", m.id, m.addr, m.peer_addr, m.zone)).collect();
        assert_eq!(
            all,
            [
                "m1 127.0.0.1:7101 None ",
                "m2 127.0.0.1:7102 None ",
                "m3 127.0.0.1:7103 None ",
                "n1 127.0.0.1:7201 Some(\"127.0.0.1:17201\") a",
                "n2 127.0.0.1:7202 Some(\"127.0.0.1:17202\") b",
                "n3 127.0.0.1:7203 Some(\"127.0.0.1:17203\") a",
            ]
        );
        assert_eq!(m.backups, 1);
        let one = compose(7100, &Wish { nodes: Some(1), backups: Some(1), ..wish() }, &quiet(), false);
        assert_eq!(one.backups, 0);
    }

    #[test]
    fn the_given_base_port_is_not_left_for_another() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = listener.local_addr().unwrap().port();
        // The listener's port is the first master's.
        let mut b = Bases { given: Some(taken - 1), left: vec![taken - 1].into_iter(), needed: (1, 1) };
        let CliError::Failed(exit, f) = b.next(&quiet()).unwrap_err() else { panic!() };
        assert_eq!((exit, f.code.as_str()), (Exit::Failed, "PORT_TAKEN"));
        assert!(f.message.contains(&format!("port {taken} is taken by")), "{f:?}");
        assert!(f.message.contains(&format!("(pid {})", std::process::id())), "{f:?}");
    }
}
