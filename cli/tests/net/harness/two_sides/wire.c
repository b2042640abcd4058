/* wire: a switch in user space over TAP devices, with delay, jitter, loss and rate on each port's
 * outgoing side. For kernels that lack sch_netem. One process; argument list of ports:
 *   wire NAME:DELAY_US:JITTER_US:LOSS_PPM:RATE_KBIT ...     (rate 0: unlimited)
 * Makes (or attaches to) the TAP devices, then forwards until SIGTERM. Frames of one port keep order. All ports are good
 * ones, without delay, loss or limit, until SIGUSR1. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define PORTS 256
#define QUEUE 4096            /* frames waiting a port; past that, tail drop */
#define FRAME 9216
struct frame { uint64_t due; int len; uint8_t *b; };
struct port { int fd; uint64_t delay, jitter, rate, busy, last; uint32_t loss; struct frame q[QUEUE]; unsigned head, tail; };
static struct port *ports[PORTS];
static struct { uint8_t mac[6]; int port; } seen[1024];
static int n, nseen;
static volatile sig_atomic_t poor;

static void turn_poor(int s) { (void)s; poor = 1; }

static uint64_t now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec * 1000000000ull + t.tv_nsec; }
static uint32_t rnd(void) { static uint64_t s = 88172645463325252ull; s ^= s << 13; s ^= s >> 7; s ^= s << 17; return s >> 32; }

static void enqueue(struct port *p, const uint8_t *b, int len, uint64_t t) {
  if (p->tail - p->head == QUEUE || (poor && p->loss && rnd() % 1000000 < p->loss)) return;
  uint64_t due = t;
  if (poor && p->rate) {                                   /* serialisation first, at most 200 ms of queue */
    uint64_t start = p->busy > t ? p->busy : t;
    if (start - t > 200000000ull) return;
    due = p->busy = start + len * 8000000ull / p->rate;
  }
  if (poor) due += p->delay + (p->jitter ? rnd() % p->jitter : 0);
  if (due < p->last) due = p->last;
  p->last = due;
  struct frame *f = &p->q[p->tail++ % QUEUE];
  f->due = due; f->len = len; f->b = malloc(len);
  memcpy(f->b, b, len);
}

int main(int argc, char **argv) {
  if (argc < 2 || argc - 1 > PORTS) return fprintf(stderr, "usage: wire NAME:DELAY_US:JITTER_US:LOSS_PPM:RATE_KBIT ...\n"), 2;
  struct pollfd pf[PORTS];
  for (n = 0; n < argc - 1; n++) {
    struct port *p = ports[n] = calloc(1, sizeof *p);
    char name[IFNAMSIZ] = ""; unsigned long d, j, l, r;
    if (sscanf(argv[n + 1], "%15[^:]:%lu:%lu:%lu:%lu", name, &d, &j, &l, &r) != 5) return fprintf(stderr, "bad port %s\n", argv[n + 1]), 2;
    p->delay = d * 1000; p->jitter = j * 1000; p->loss = l; p->rate = r;
    struct ifreq q = { .ifr_flags = IFF_TAP | IFF_NO_PI };
    memcpy(q.ifr_name, name, IFNAMSIZ);
    if ((p->fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC)) < 0 || ioctl(p->fd, TUNSETIFF, &q) < 0) return perror(name), 1;
    pf[n] = (struct pollfd){ p->fd, POLLIN, 0 };
  }
  struct sigaction a = { .sa_handler = turn_poor };
  sigaction(SIGUSR1, &a, NULL);
  puts("ready"); fflush(stdout);
  static uint8_t b[FRAME];
  for (;;) {
    uint64_t t = now(), next = t + 1000000000ull;
    for (int i = 0; i < n; i++) {
      struct port *p = ports[i];
      while (p->head != p->tail && p->q[p->head % QUEUE].due <= t) {
        struct frame *f = &p->q[p->head % QUEUE];
        if (write(p->fd, f->b, f->len) < 0 && errno == EAGAIN) break;
        free(f->b); p->head++;
      }
      if (p->head != p->tail && p->q[p->head % QUEUE].due < next) next = p->q[p->head % QUEUE].due;
    }
    struct timespec w = { 0, 0 };
    t = now();
    if (next > t) { w.tv_sec = (next - t) / 1000000000ull; w.tv_nsec = (next - t) % 1000000000ull; }
    if (ppoll(pf, n, &w, NULL) < 0 && errno != EINTR) return perror("ppoll"), 1;
    t = now();
    for (int i = 0; i < n; i++) {
      if (!(pf[i].revents & POLLIN)) continue;
      for (int k = 0, len; k < 64 && (len = read(ports[i]->fd, b, FRAME)) >= 14; k++) {
        int s, to = -1;
        for (s = 0; s < nseen && memcmp(seen[s].mac, b + 6, 6); s++);
        if (s < 1024) { memcpy(seen[s].mac, b + 6, 6); seen[s].port = i; if (s == nseen) nseen++; }
        if (!(b[0] & 1)) for (s = 0; s < nseen; s++) if (!memcmp(seen[s].mac, b, 6)) { to = seen[s].port; break; }
        for (int o = 0; o < n; o++) if (o != i && (to < 0 || to == o)) enqueue(ports[o], b, len, t);
      }
    }
  }
}
