//! Whole programs at work: git, a compiler, Python, SQLite.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::Workload;
use super::tools::{cpus, run, shell, together};
use crate::fixtures::git;
use crate::layers::Which;
use crate::layers::python::{LIBRARY, interpreter};
use crate::layers::system::PACKAGES;
use crate::row::{Goal, each, whole};
use crate::session::{Native, Session};

const AGAIN: usize = 5;

pub const ALL: &[Workload] = &[
    Workload {
        name: "git",
        layers: Which::Blank,
        native: Native::Shared,
        rows: &[
            whole("git-clone", "git clone", Goal::Kernel(2.0), 1.0),
            whole("git-status-first", "git status, first", Goal::None, 1.0),
            whole("git-status", "git status, again", Goal::Kernel(1.1), 3.0),
        ],
        run: clone,
    },
    Workload {
        name: "sqlite",
        layers: Which::Blank,
        native: Native::Shared,
        rows: &[
            each(
                "sqlite-off",
                "SQLite transaction, synchronous=OFF",
                Goal::None,
                1.0,
            ),
            each(
                "sqlite-full",
                "SQLite transaction, synchronous=FULL",
                Goal::None,
                1.0,
            ),
        ],
        run: sqlite,
    },
    Workload {
        name: "compile",
        layers: Which::Project,
        native: Native::Copied,
        rows: &[whole(
            "compile",
            "make of a C project",
            Goal::Kernel(1.1),
            1.0,
        )],
        run: compile,
    },
    Workload {
        name: "python",
        layers: Which::Python,
        native: Native::Shared,
        rows: &[
            whole(
                "python-first",
                "Python importing 100 modules, first",
                Goal::None,
                1.0,
            ),
            whole(
                "python-again",
                "Python importing 100 modules, again",
                Goal::None,
                1.0,
            ),
        ],
        run: python,
    },
    Workload {
        name: "dpkg",
        layers: Which::System,
        native: Native::Copied,
        rows: &[whole(
            "dpkg",
            "dpkg --unpack of four packages",
            Goal::None,
            1.0,
        )],
        run: unpack,
    },
];

fn clone(session: &mut Session<'_>) -> Result<()> {
    let repository = session.fixtures.repository()?;
    let clone = session.made("clone");
    session.mount()?;
    session.meet_daemon()?;
    session.time("git-clone", 1, |_| {
        let mut command = git(Path::new("/"));
        command.args(["clone", "-q", "--no-hardlinks"]);
        together(vec![{
            command.arg(&repository).arg(&clone);
            command
        }])
    })?;
    let status = || {
        let mut command = git(&clone);
        command.args(["status", "--porcelain"]);
        together(vec![command])
    };
    session.time("git-status-first", 1, |_| status())?;
    session.time("git-status", AGAIN, |_| {
        (0..AGAIN).try_for_each(|_| status())
    })
}

const SQLITE: &str = "
import sqlite3, sys
path, synchronous, count = sys.argv[1:]
db = sqlite3.connect(path, isolation_level=None)
db.execute('pragma synchronous=' + synchronous)
db.execute('create table t (id integer primary key, text)')
for n in range(int(count)):
    db.execute('insert into t (text) values (?)', ('row %d' % n,))
db.close()
";

fn sqlite(session: &mut Session<'_>) -> Result<()> {
    let python = interpreter()?;
    let (off, full) = session.sizes.transactions;
    session.mount()?;
    session.meet_daemon()?;
    for (slug, synchronous, count) in [("sqlite-off", "off", off), ("sqlite-full", "full", full)] {
        let database = session.made(slug);
        session.time(slug, count, |_| {
            let mut command = Command::new(&python);
            command.args(["-c", SQLITE]).arg(&database);
            command.args([synchronous, &count.to_string()]);
            together(vec![command])
        })?;
    }
    Ok(())
}

fn compile(session: &mut Session<'_>) -> Result<()> {
    session.mount()?;
    session.meet_daemon()?;
    let jobs = format!("-j{}", cpus());
    session.time("compile", 1, |session| {
        run("make", &[&"-s", &jobs, &"-C", &session.at("project")])
    })
}

/// Modules that bring many others along.
const IMPORTS: &str = "import argparse, ast, asyncio, base64, bisect, calendar, cmd, code, \
    codecs, collections, compileall, concurrent.futures, configparser, contextlib, copy, csv, \
    dataclasses, datetime, decimal, difflib, dis, doctest, email.mime.multipart, email.mime.text, \
    enum, filecmp, fileinput, fractions, ftplib, functools, getopt, getpass, gettext, glob, \
    graphlib, gzip, hashlib, heapq, hmac, html.parser, http.client, http.cookiejar, http.server, \
    imaplib, inspect, ipaddress, json, keyword, linecache, locale, logging.config, \
    logging.handlers, mailbox, mimetypes, multiprocessing.managers, multiprocessing.pool, \
    netrc, nntplib, numbers, operator, optparse, pathlib, pdb, pickle, pickletools, platform, \
    plistlib, poplib, pprint, profile, pstats, pyclbr, pydoc, queue, quopri, random, reprlib, \
    runpy, sched, secrets, selectors, shelve, shlex, shutil, smtplib, socketserver, statistics, \
    string, stringprep, subprocess, tabnanny, tarfile, tempfile, textwrap, threading, timeit, \
    tokenize, trace, traceback, tracemalloc, types, typing, unittest.mock, urllib.request, \
    urllib.robotparser, uuid, venv, warnings, wave, weakref, webbrowser, wsgiref.simple_server, \
    xml.dom.minidom, xml.etree.ElementTree, xml.sax.expatreader, xmlrpc.client, zipapp, zipfile";

fn python(session: &mut Session<'_>) -> Result<()> {
    let python = interpreter()?;
    let library = session.at(LIBRARY);
    // What a version of Python lacks is passed over, for all peers alike.
    let script = IMPORTS
        .trim_start_matches("import ")
        .split(", ")
        .map(|module| format!("try: import {}\nexcept ImportError: pass\n", module.trim()))
        .collect::<String>();
    let step = |_: &Session<'_>| {
        let mut command = Command::new(&python);
        command.env("PYTHONPATH", &library).args(["-W", "ignore"]);
        command.args(["-B", "-S", "-c", &script]);
        together(vec![command])
    };
    session.mount()?;
    session.meet_daemon()?;
    session.time("python-first", 1, step)?;
    session.time("python-again", 1, step)
}

fn unpack(session: &mut Session<'_>) -> Result<()> {
    let script = format!(
        "exec chroot \"$1\" sh -c 'exec dpkg --unpack --force-depends /{PACKAGES}/*.deb' 2>/dev/null"
    );
    session.mount()?;
    session.meet_daemon()?;
    session.time("dpkg", 1, |session| {
        together(vec![shell(&script, std::slice::from_ref(&session.mnt))])
    })
}
