//! Which of pjdfstest's cases fail or are skipped on a union, and why; the list is exact.

/// They make a character device 0/0, which the format reserves for whiteouts: EPERM, as in kernel
/// overlayfs, which fails the same cases.
pub const FAIL: &[&str] = &[
    "chmod::change_perm::char",
    "chmod::enotdir_component::char",
    "chmod::failed_chmod_unchanged_ctime::char",
    "chmod::update_ctime::char",
    "chown::enotdir_component::char",
    "chown::lchown::enotdir_component::char",
    "link::changed_ctime_success::char",
    "link::eexist_dest_exists::char",
    "link::enotdir_component_either::char",
    "link::remove_link::char",
    "link::share_metadata::char",
    "link::unchanged_ctime_fails::char",
    "mkdir::eexist_file_exists::char",
    "mkdir::enotdir_component::char",
    "mkfifo::eexist_file_exists::char",
    "mkfifo::enotdir_component::char",
    "mknod::eexist_file_exists::char",
    "mknod::enotdir_comp_char_block::char",
    "mknod::enotdir_component::char",
    "mknod::privileged::eexist_file_exists::char",
    "open::eexist_file_exists::char",
    "rename::changed_ctime_success::char",
    "rename::eexist_enotempty_to_non_empty::char",
    "rename::eisdir_to_dir_from_not_dir::char",
    "rename::enotdir_component_either::char",
    "rename::enotdir_from_dir_to_not_dir::char",
    "rename::preserve_metadata::char",
    "rename::to_multiply_linked::char",
    "rename::unchanged_ctime_failed::char",
    "rmdir::eexist_enotempty_non_empty_dir::char",
    "rmdir::enotdir_component::char",
    "symlink::create_symlink::char",
    "symlink::eexist_file_exists::char",
    "symlink::enotdir_component::char",
    "truncate::enotdir_component::char",
    "unlink::enotdir_component::char",
    "unlink::remove_type::char",
    "unlink::unchanged_ctime_failed::char",
    "unlink::update_ctime_success::char",
    "unlink::update_mtime_ctime_success_folder::char",
    "utimensat::changes_timestamps::char",
];

/// The kernel knows no limit of links for FUSE, nor for overlayfs.
pub const SKIPPED: &[&str] = &["link::link_count_max"];

/// All cases of version 0.2.2.
pub const TOTAL: usize = 398;
