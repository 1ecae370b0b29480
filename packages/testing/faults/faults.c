/*
 * Disk faults for a process: loaded by LD_PRELOAD, it stands between the program and the C library for files below one directory.
 *
 *     cc -shared -fPIC -O2 -o faults.so faults.c -ldl
 *     DISK_FAULTS_DIR=/data DISK_FAULTS_CONTROL=/control LD_PRELOAD=./faults.so node server.js
 *
 * It is steered through the control file, which is shared memory: 64-bit integers, in the order of `struct control`. The program counts
 * its calls there, and reads from there what is to go wrong.
 *
 * Power loss: of every sector that was written since the file's last successful sync the old bytes are kept, and put back, all of them or
 * a seeded random choice, before the process kills itself. So what was acknowledged without having been synced is gone, which a killed
 * process alone doesn't show: its writes are the system's.
 *
 * A sync that fails leaves what was written so far as Linux does: readable, taken for clean, and on no disk. A later sync doesn't save it, only
 * writing it again does. This outlives the process: it is handed to the next one in a file beside the control.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define SECTOR 512

struct control {
  /* Counted by the program. */
  int64_t writes, syncs, truncates, unlinks;
  /* Which call is the last: the n-th of its kind counted from now on, as each is counted down to 1 and then comes; 0 for never. */
  int64_t kill_at_write, kill_at_sync;
  /* Before the call, after it, or in the middle of a write. */
  int64_t kill_when;
  /* What of unsynced sectors is lost then: nothing, all, or a random choice by the seed. */
  int64_t loss, seed;
  /* The errno that calls answer, 0 for none, after so many more that go well. */
  int64_t write_errno, writes_before, sync_errno, syncs_before;
  int64_t sync_millis;
  /* Which files all this is about: those whose names end in `-wal` are 1, others 2, all 0. */
  int64_t files;
};

enum { BEFORE, AFTER, TORN };
enum { KEEP_ALL, LOSE_ALL, LOSE_SOME };

struct file {
  dev_t dev;
  ino_t ino;
  int is_wal;
  char path[PATH_MAX];
  /* As the last sync left it. */
  off_t synced_size;
  /* The old bytes of the sectors that were written since, by number; NULL for those that weren't. */
  unsigned char **old;
  /* Of each of them, whether a sync failed since, so that no other will save it. */
  unsigned char *is_dropped;
  size_t sectors;
};

/* A sector as it is handed to the next process. */
struct dropped {
  char path[PATH_MAX];
  uint64_t sector;
  int64_t synced_size;
  unsigned char old[SECTOR];
};

static struct control *control;
static char directory[PATH_MAX], dropped_path[PATH_MAX + 16];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct file files[64];
static int file_count;

static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static ssize_t (*real_pwrite64)(int, const void *, size_t, off64_t);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);
static int (*real_ftruncate)(int, off_t);
static int (*real_ftruncate64)(int, off64_t);
static int (*real_unlink)(const char *);

__attribute__((constructor)) static void begin(void) {
  real_write = dlsym(RTLD_NEXT, "write");
  real_pwrite = dlsym(RTLD_NEXT, "pwrite");
  real_pwrite64 = dlsym(RTLD_NEXT, "pwrite64");
  real_fsync = dlsym(RTLD_NEXT, "fsync");
  real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
  real_ftruncate = dlsym(RTLD_NEXT, "ftruncate");
  real_ftruncate64 = dlsym(RTLD_NEXT, "ftruncate64");
  real_unlink = dlsym(RTLD_NEXT, "unlink");
  const char *dir = getenv("DISK_FAULTS_DIR");
  const char *path = getenv("DISK_FAULTS_CONTROL");
  if (dir == NULL || path == NULL || realpath(dir, directory) == NULL) return;
  snprintf(dropped_path, sizeof dropped_path, "%s.dropped", path);
  int fd = open(path, O_RDWR);
  if (fd < 0) return;
  void *shared = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd);
  if (shared != MAP_FAILED) control = shared;
}

/* Makes room for sectors up to a number. */
static void grow(struct file *file, size_t end) {
  if (end <= file->sectors) return;
  file->old = realloc(file->old, end * sizeof *file->old);
  file->is_dropped = realloc(file->is_dropped, end);
  if (file->old == NULL || file->is_dropped == NULL) abort();
  memset(file->old + file->sectors, 0, (end - file->sectors) * sizeof *file->old);
  memset(file->is_dropped + file->sectors, 0, end - file->sectors);
  file->sectors = end;
}

static unsigned char *sector_of_bytes(void) {
  unsigned char *bytes = calloc(1, SECTOR);
  if (bytes == NULL) abort();
  return bytes;
}

/* What the process before has left of this file. */
static void inherit(struct file *file) {
  FILE *left = fopen(dropped_path, "rb");
  if (left == NULL) return;
  static struct dropped each;
  while (fread(&each, sizeof each, 1, left) == 1) {
    if (strcmp(each.path, file->path) != 0) continue;
    grow(file, each.sector + 1);
    file->old[each.sector] = sector_of_bytes();
    memcpy(file->old[each.sector], each.old, SECTOR);
    file->is_dropped[each.sector] = 1;
    file->synced_size = each.synced_size;
  }
  fclose(left);
}

static void bequeath(void) {
  FILE *left = fopen(dropped_path, "wb");
  if (left == NULL) abort();
  static struct dropped each;
  for (int i = 0; i < file_count; i++) {
    struct file *file = &files[i];
    for (size_t sector = 0; sector < file->sectors; sector++) {
      if (file->old[sector] == NULL || !file->is_dropped[sector]) continue;
      strcpy(each.path, file->path);
      each.sector = sector;
      each.synced_size = file->synced_size;
      memcpy(each.old, file->old[sector], SECTOR);
      if (fwrite(&each, sizeof each, 1, left) != 1) abort();
    }
  }
  fclose(left);
}

/* The file behind a descriptor where it is one of the directory's. Descriptors are used again, so the file is told by its inode. */
static struct file *file_of(int fd) {
  struct stat status;
  if (control == NULL || fd <= 2 || fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) return NULL;
  for (int i = 0; i < file_count; i++) {
    if (files[i].dev == status.st_dev && files[i].ino == status.st_ino) return &files[i];
  }
  char link[64], path[PATH_MAX];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length < 0) return NULL;
  path[length] = 0;
  if (strncmp(path, directory, strlen(directory)) != 0) return NULL;
  if (file_count == (int)(sizeof files / sizeof *files)) abort();
  struct file *file = &files[file_count++];
  memset(file, 0, sizeof *file);
  file->dev = status.st_dev;
  file->ino = status.st_ino;
  file->synced_size = status.st_size;
  file->is_wal = length > 4 && strcmp(path + length - 4, "-wal") == 0;
  memcpy(file->path, path, (size_t)length + 1);
  inherit(file);
  return file;
}

static int concerns(const struct file *file) {
  return control->files == 0 || control->files == (file->is_wal ? 1 : 2);
}

/* Keeps what a range holds before it is changed for the first time since the last sync. */
static void remember(struct file *file, int fd, off_t from, off_t to) {
  size_t end = (size_t)((to + SECTOR - 1) / SECTOR);
  grow(file, end);
  /* A descriptor for writing alone can't be read from. */
  int reader = open(file->path, O_RDONLY);
  for (size_t i = (size_t)(from / SECTOR); i < end; i++) {
    file->is_dropped[i] = 0;
    if (file->old[i] != NULL) continue;
    file->old[i] = sector_of_bytes();
    if (pread(reader < 0 ? fd : reader, file->old[i], SECTOR, (off_t)i * SECTOR) < 0) memset(file->old[i], 0, SECTOR);
  }
  if (reader >= 0) close(reader);
}

/* A sync went well. */
static void forget(struct file *file, int fd) {
  for (size_t i = 0; i < file->sectors; i++) {
    if (file->is_dropped[i]) continue;
    free(file->old[i]);
    file->old[i] = NULL;
  }
  struct stat status;
  if (fstat(fd, &status) == 0) file->synced_size = status.st_size;
}

/* A sync failed. */
static void drop(struct file *file) {
  for (size_t i = 0; i < file->sectors; i++) file->is_dropped[i] = file->old[i] != NULL;
}

/* xorshift64* */
static int chosen(uint64_t *state) {
  *state ^= *state >> 12;
  *state ^= *state << 25;
  *state ^= *state >> 27;
  return (int)((*state * 2685821657736338717ULL) >> 63);
}

static void lose_power(void) {
  uint64_t state = (uint64_t)control->seed * 2 + 1;
  for (int i = 0; i < file_count; i++) {
    struct file *file = &files[i];
    int fd = open(file->path, O_RDWR);
    struct stat status;
    if (fd < 0 || fstat(fd, &status) != 0 || status.st_ino != file->ino) continue;
    int loses_size = control->loss == LOSE_ALL || chosen(&state);
    for (size_t sector = 0; sector < file->sectors; sector++) {
      if (file->old[sector] == NULL) continue;
      if (control->loss == LOSE_SOME && chosen(&state)) continue;
      if (real_pwrite(fd, file->old[sector], SECTOR, (off_t)sector * SECTOR) < 0) abort();
    }
    if (fstat(fd, &status) == 0 && (loses_size || status.st_size < file->synced_size)) {
      if (real_ftruncate(fd, file->synced_size) != 0) abort();
    }
    close(fd);
  }
}

static void die(void) {
  if (control->loss != KEEP_ALL) {
    lose_power();
    real_unlink(dropped_path);
  } else {
    bequeath();
  }
  kill(getpid(), SIGKILL);
  for (;;) pause();
}

/* Whether this call is the one that was counted down to. */
static int is_due(int64_t *left) {
  if (*left <= 0) return 0;
  return --*left == 0;
}

/* The errno of this call, or 0. */
static int fault(int64_t error, int64_t *before) {
  if (error == 0) return 0;
  if (*before > 0) {
    --*before;
    return 0;
  }
  return (int)error;
}

static ssize_t put(int fd, const void *bytes, size_t length, off_t at) {
  return at < 0 ? real_write(fd, bytes, length) : real_pwrite(fd, bytes, length, at);
}

/* `at` is -1 where the file has a position of its own. */
static ssize_t guarded_write(int fd, const void *bytes, size_t length, off_t at) {
  pthread_mutex_lock(&lock);
  struct file *file = file_of(fd);
  if (file == NULL) {
    pthread_mutex_unlock(&lock);
    return put(fd, bytes, length, at);
  }
  control->writes++;
  int is_last = concerns(file) && is_due(&control->kill_at_write);
  int error = concerns(file) ? fault(control->write_errno, &control->writes_before) : 0;
  if (is_last && control->kill_when == BEFORE) die();
  ssize_t written = -1;
  if (error == 0) {
    off_t from = at < 0 ? lseek(fd, 0, SEEK_CUR) : at;
    remember(file, fd, from, from + (off_t)length);
    if (is_last && control->kill_when == TORN) {
      put(fd, bytes, length / 2, at);
      die();
    }
    written = put(fd, bytes, length, at);
  }
  if (is_last) die();
  pthread_mutex_unlock(&lock);
  if (error != 0) errno = error;
  return written;
}

static int guarded_sync(int fd, int (*real)(int)) {
  pthread_mutex_lock(&lock);
  struct file *file = file_of(fd);
  if (file == NULL) {
    pthread_mutex_unlock(&lock);
    return real(fd);
  }
  control->syncs++;
  int is_last = concerns(file) && is_due(&control->kill_at_sync);
  int error = concerns(file) ? fault(control->sync_errno, &control->syncs_before) : 0;
  if (is_last && control->kill_when != AFTER) die();
  if (control->sync_millis > 0 && concerns(file)) {
    struct timespec rest = {control->sync_millis / 1000, (control->sync_millis % 1000) * 1000000};
    nanosleep(&rest, NULL);
  }
  int result = -1;
  if (error == 0) {
    result = real(fd);
    if (result == 0) forget(file, fd);
  }
  if (result != 0) drop(file);
  if (is_last) die();
  pthread_mutex_unlock(&lock);
  if (error != 0) errno = error;
  return result;
}

ssize_t write(int fd, const void *bytes, size_t length) { return guarded_write(fd, bytes, length, -1); }

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t at) { return guarded_write(fd, bytes, length, at); }

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t at) { return guarded_write(fd, bytes, length, at); }

int fsync(int fd) { return guarded_sync(fd, real_fsync); }

int fdatasync(int fd) { return guarded_sync(fd, real_fdatasync); }

static int guarded_truncate(int fd, off_t length) {
  pthread_mutex_lock(&lock);
  struct file *file = file_of(fd);
  if (file == NULL) {
    pthread_mutex_unlock(&lock);
    return real_ftruncate(fd, length);
  }
  control->truncates++;
  struct stat status;
  if (fstat(fd, &status) == 0 && status.st_size > length) remember(file, fd, length / SECTOR * SECTOR, status.st_size);
  int result = real_ftruncate(fd, length);
  pthread_mutex_unlock(&lock);
  return result;
}

int ftruncate(int fd, off_t length) { return guarded_truncate(fd, length); }

int ftruncate64(int fd, off64_t length) { return guarded_truncate(fd, length); }

int unlink(const char *path) {
  int result = real_unlink(path);
  if (control == NULL || result != 0) return result;
  pthread_mutex_lock(&lock);
  for (int i = 0; i < file_count; i++) {
    struct file *file = &files[i];
    if (strcmp(file->path, path) != 0) continue;
    control->unlinks++;
    for (size_t sector = 0; sector < file->sectors; sector++) free(file->old[sector]);
    free(file->old);
    free(file->is_dropped);
    /* Its inode may be another file's next. */
    *file = files[--file_count];
    break;
  }
  pthread_mutex_unlock(&lock);
  return result;
}
