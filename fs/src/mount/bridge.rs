//! The kernel's requests, one method each: what it asks is copied out, worked on in a task, and answered from there.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileAttr, FileHandle, Filesystem, FopenFlags,
    Generation, INodeNo, InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenAccMode, OpenFlags, RenameFlags,
    ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry,
    ReplyIoctl, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use super::answer::{Bridge, errno};
use super::attributes::{milliseconds, now_ms};
use super::directories::{Row, RowPlus, TTL};
use super::fault::Fault;
use super::mounted::Mounted;
use super::names::Wanted;
use crate::path::MAX_NAME_BYTES;

/// The most that one write carries; each may be held in memory until its turn comes.
const MAX_WRITE: u32 = 1 << 20;
/// Requests that the kernel makes on its own behalf at once: reading ahead, writing mapped pages back.
const MAX_BACKGROUND: u16 = 32;
/// Numbers are never used again, so there is one generation of them.
const GENERATION: Generation = Generation(0);
/// Bits of a mode that say what kind of file it is, and those of a regular one.
const KIND: u32 = 0o170_000;
const REGULAR: u32 = 0o100_000;
/// The handles of files say nothing but whether they can write: what is open is known by its inode.
const READS: FileHandle = FileHandle(0);
const WRITES: FileHandle = FileHandle(1);

fn entry(reply: ReplyEntry, attributes: FileAttr) {
    reply.entry(&TTL, &attributes, GENERATION);
}

fn attributes(reply: ReplyAttr, attributes: FileAttr) {
    reply.attr(&TTL, &attributes);
}

fn empty(reply: ReplyEmpty, (): ()) {
    reply.ok();
}

fn at(time: TimeOrNow) -> u64 {
    match time {
        TimeOrNow::SpecificTime(time) => milliseconds(time),
        TimeOrNow::Now => now_ms(),
    }
}

impl Filesystem for Bridge {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // What a kernel does not know it does without.
        for capability in [
            // Pages are dropped when the content has changed elsewhere.
            InitFlags::FUSE_AUTO_INVAL_DATA,
            // Listings with attributes, for those who look at them.
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
            InitFlags::FUSE_PARALLEL_DIROPS,
        ] {
            let _ = config.add_capabilities(capability);
        }
        let _ = config.set_max_write(MAX_WRITE);
        let _ = config.set_max_background(MAX_BACKGROUND);
        Ok(())
    }

    fn destroy(&mut self) {
        if let Some(end) = self.end.take() {
            // Nobody may be waiting for it.
            let _ = end.send(());
        }
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let name = name.to_owned();
        self.answer("look up", reply, async move |mounted| mounted.look_up(parent.0, &name).await, entry);
    }

    fn forget(&self, _: &Request, ino: INodeNo, lookups: u64) {
        self.mounted.table().forget(ino.0, lookups);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        self.answer("stat", reply, async move |mounted| mounted.attributes(ino.0).await, attributes);
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        // The tree has no owners: to change them does nothing, so that what is unpacked or copied by root arrives.
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        // Nor does it know when something was last read or created.
        _: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _: Option<SystemTime>,
        handle: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let wanted = Wanted { mode, size, by_handle: handle.is_some(), mtime_ms: mtime.map(at) };
        let work = async move |mounted: Arc<Mounted>| mounted.set_attributes(ino.0, wanted).await;
        self.answer("change attributes", reply, work, attributes);
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        let work = async move |mounted: Arc<Mounted>| mounted.read_link(ino.0).await;
        self.answer("read a link", reply, work, |reply, target| reply.data(target.as_bytes()));
    }

    fn mknod(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        _: u32,
        reply: ReplyEntry,
    ) {
        if mode & KIND != REGULAR && mode & KIND != 0 {
            return reply.error(Fault::NotPermitted.errno());
        }
        let name = name.to_owned();
        let work = async move |mounted: Arc<Mounted>| mounted.make_file(parent.0, &name, mode).await;
        self.answer("make a file", reply, work, entry);
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, reply: ReplyEntry) {
        let name = name.to_owned();
        let work = async move |mounted: Arc<Mounted>| mounted.make_dir(parent.0, &name, mode).await;
        self.answer("make a directory", reply, work, entry);
    }

    fn symlink(&self, _: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let (name, target) = (name.to_owned(), target.to_owned());
        let work = async move |mounted: Arc<Mounted>| {
            mounted.make_link(parent.0, &name, OsStr::from_bytes(target.as_os_str().as_bytes())).await
        };
        self.answer("make a link", reply, work, entry);
    }

    fn link(&self, _: &Request, _: INodeNo, _: INodeNo, _: &OsStr, reply: ReplyEntry) {
        reply.error(Fault::NotPermitted.errno());
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.to_owned();
        let work = async move |mounted: Arc<Mounted>| mounted.unlink(parent.0, &name).await;
        self.answer("remove a file", reply, work, empty);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.to_owned();
        let work = async move |mounted: Arc<Mounted>| mounted.remove_dir(parent.0, &name).await;
        self.answer("remove a directory", reply, work, empty);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (name, new_name) = (name.to_owned(), new_name.to_owned());
        let work = async move |mounted: Arc<Mounted>| {
            mounted.rename((parent.0, &name), (new_parent.0, &new_name), flags).await
        };
        self.answer("move", reply, work, empty);
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        match self.mounted.create(parent.0, name, mode) {
            Ok(made) => reply.created(&TTL, &made, GENERATION, WRITES, FopenFlags::empty()),
            Err(fault) => reply.error(fault.errno()),
        }
    }

    fn open(&self, _: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let handle = if flags.acc_mode() == OpenAccMode::O_RDONLY { READS } else { WRITES };
        let work = async move |mounted: Arc<Mounted>| mounted.open(ino.0).await;
        self.answer("open", reply, work, move |reply, opened| {
            let flags = if opened.is_cached { FopenFlags::FOPEN_KEEP_CACHE } else { FopenFlags::empty() };
            reply.opened(handle, flags);
        });
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let work = async move |mounted: Arc<Mounted>| mounted.read(ino.0, offset, size).await;
        self.answer("read", reply, work, |reply, bytes| reply.data(&bytes));
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let (bytes, length) = (Bytes::copy_from_slice(data), data.len() as u32);
        let work = async move |mounted: Arc<Mounted>| mounted.write(ino.0, offset, bytes).await;
        self.answer("write", reply, work, move |reply, ()| reply.written(length));
    }

    fn flush(&self, _: &Request, ino: INodeNo, handle: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // Who only read brings nothing to the tree, least of all what another is writing just now.
        if handle == READS {
            return reply.ok();
        }
        self.answer("close", reply, async move |mounted| mounted.sync(ino.0).await, empty);
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.answer("sync", reply, async move |mounted| mounted.sync(ino.0).await, empty);
    }

    fn release(
        &self,
        _: &Request,
        ino: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        let work = async move |mounted: Arc<Mounted>| {
            mounted.release(ino.0, handle == WRITES).await;
            Ok(())
        };
        self.answer("release", reply, work, empty);
    }

    fn opendir(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(self.mounted.open_dir(ino.0)), FopenFlags::empty());
    }

    fn readdir(&self, _: &Request, _: INodeNo, handle: FileHandle, from: u64, mut reply: ReplyDirectory) {
        let mounted = Arc::clone(&self.mounted);
        self.spawn(async move {
            let add = |row: Row<'_>| reply.add(INodeNo(row.ino), row.next, row.kind, row.name);
            match mounted.list(handle.0, from, add).await {
                Ok(()) => reply.ok(),
                Err(fault) => reply.error(errno("list", &fault)),
            }
        });
    }

    fn readdirplus(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        from: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let mounted = Arc::clone(&self.mounted);
        self.spawn(async move {
            let add = |RowPlus { attributes, next, ttl, name }: RowPlus<'_>| {
                reply.add(attributes.ino, next, name, &ttl, &attributes, GENERATION)
            };
            match mounted.list_plus(handle.0, from, add).await {
                Ok(()) => reply.ok(),
                Err(fault) => reply.error(errno("list", &fault)),
            }
        });
    }

    fn releasedir(&self, _: &Request, _: INodeNo, handle: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.mounted.release_dir(handle.0);
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        // A change of the tree is on disk when it is acknowledged.
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let disk = self.disk.clone();
        let work = async move |_| {
            let asked = tokio::task::spawn_blocking(move || rustix::fs::statvfs(&disk)).await;
            let asked = asked.map_err(io::Error::other).and_then(|asked| asked.map_err(io::Error::from));
            asked.map_err(Fault::stage("measure the disk of"))
        };
        self.answer("statfs", reply, work, |reply, disk| {
            let (block, longest) = (disk.f_bsize as u32, MAX_NAME_BYTES as u32);
            let (files, free_files) = (disk.f_files, disk.f_ffree);
            let (blocks, free, available) = (disk.f_blocks, disk.f_bfree, disk.f_bavail);
            reply.statfs(blocks, free, available, files, free_files, block, longest, disk.f_frsize as u32);
        });
    }

    // The rest is not there. The kernel asks once, does without, and says `EOPNOTSUPP` where programs expect that.

    fn setxattr(&self, _: &Request, _: INodeNo, _: &OsStr, _: &[u8], _: i32, _: u32, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn getxattr(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, reply: ReplyXattr) {
        reply.error(Errno::ENOSYS);
    }

    fn listxattr(&self, _: &Request, _: INodeNo, _: u32, reply: ReplyXattr) {
        reply.error(Errno::ENOSYS);
    }

    fn removexattr(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn access(&self, _: &Request, _: INodeNo, _: AccessFlags, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn fallocate(&self, _: &Request, _: INodeNo, _: FileHandle, _: u64, _: u64, _: i32, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn lseek(&self, _: &Request, _: INodeNo, _: FileHandle, _: i64, _: i32, reply: ReplyLseek) {
        reply.error(Errno::ENOSYS);
    }

    fn copy_file_range(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: u64,
        _: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn ioctl(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: IoctlFlags,
        _: u32,
        _: &[u8],
        _: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }
}
