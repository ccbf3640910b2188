// Which page of the latent cache holds which tokens: reference counts, reuse of equal prefixes, eviction.
// Torch-free, no threads, no storage: a page id indexes the rows of all layers (and MTP modules) alike.
#pragma once
#include <cstdint>
#include <list>
#include <optional>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "hadal/network/latent_pages.h"

namespace hadal {

using SequenceId = uint64_t;  // the caller's choice

struct PageTableOptions {
  int64_t num_pages = 0;
  int64_t page_tokens = kPageTokens;
  bool reuse_prefixes = true;
  uint64_t hash_mask = ~uint64_t{0};  // of a page's chain hash; tests narrow it so that hashes collide
};

struct PageTableStats {
  int64_t pages = 0;   // = used + cached + free
  int64_t used = 0;    // referenced by a sequence
  int64_t cached = 0;  // by none, kept for a prefix that may come again
  int64_t free = 0;
  // Since the start:
  int64_t opened = 0, hits = 0;                      // sequences; those that reused at least a page
  int64_t asked_tokens = 0, reused_tokens = 0;       // of the prefixes that were looked up
  int64_t published = 0, joined = 0, evictions = 0;  // pages; joined: computed twice, one copy kept
};

struct PrefixMatch {
  int64_t tokens = 0;      // a multiple of the page
  int64_t used_pages = 0;  // of its pages, those a sequence refers to already
};

// A full page is known by its parent page and its tokens ("published") as soon as its last row is committed,
// and is never written again until it is evicted: sequences with the same prefix share it. The last page of a
// sequence, while partly filled, is its own; nothing is copied on a write, since no shared page is ever
// written. Of two sequences that compute the same page, the later one takes over the earlier's.
//
// A page is found by a chain hash of (parent's hash, tokens), then the parent and all tokens are compared: a
// collision costs time, never a wrong prefix. Whoever refers to a page refers to its ancestors too and lets
// go of the last page first, so the least recently used page is never an ancestor of a cached one.
//
// Deterministic: the pages given depend on the calls only. Spans returned are valid until the next call that
// is not const. A misuse (unknown id, commit past the reserved pages) throws internal.
class PageTable {
 public:
  // Throws invalid_argument for sizes below 1.
  explicit PageTable(const PageTableOptions& options);

  // The longest prefix of `tokens` that open() would reuse. O(tokens).
  PrefixMatch match(std::span<const int32_t> tokens) const;

  // Starts a sequence with the longest cached prefix of `tokens`; returns its length, a multiple of the page.
  // Leave out the last token of a prompt: its row has to be computed to know what follows.
  int64_t open(SequenceId id, std::span<const int32_t> tokens);

  // Gives the sequence pages for num_tokens rows in all; evicts if it must. All or nothing: false, and
  // nothing changes, when too few pages are available.
  bool reserve(SequenceId id, int64_t num_tokens);

  // The rows of these tokens follow those committed before and have been written, in every layer (an MTP row
  // too, where there is one). Rows of rejected drafts are never committed: the next step overwrites them.
  void commit(SequenceId id, std::span<const int32_t> tokens);

  // Keeps at most num_tokens rows and returns how many. A page that others may read is never written again,
  // so a cut inside one falls back to its start, and the caller computes less than a page anew.
  int64_t truncate(SequenceId id, int64_t num_tokens);

  // Takes the drop_tokens rows after the first keep_tokens out of the sequence, both multiples of the page,
  // and says which pages hold the rows behind the gap now; the caller moves them and rotates their keys by
  // -drop_tokens. Such rows saw a prefix that is gone, so the sequence publishes nothing from here on, and
  // what is published stays as it was: those pages are copied. Only if too few are available for that, pages
  // that no other sequence refers to are moved in place and forgotten, with all that is cached behind them.
  // Nothing changes when too few are available even so: nullopt.
  std::optional<std::vector<PageMove>> shift(SequenceId id, int64_t keep_tokens, int64_t drop_tokens);

  // The sequence ends; what it published stays cached until evicted.
  void close(SequenceId id);

  // After the weights changed: no page computed so far is found again. Open sequences go on, unpublished.
  void forget();

  // Pages that a prefix may find, each behind its parent, the likeliest to be wanted first.
  struct Published {
    int32_t page = 0, parent = -1;  // -1: the first of its sequences
    std::span<const int32_t> tokens;
  };
  std::vector<Published> published() const;

  // A cached page for these tokens behind `parent`, older than all others: one that is there, or a free one
  // (is_new: the caller writes its rows before anything else). nullopt: none is free.
  struct Restored {
    int32_t page = 0;
    bool is_new = false;
  };
  std::optional<Restored> restore(int32_t parent, std::span<const int32_t> tokens);

  std::span<const int32_t> pages(SequenceId id) const;
  int64_t num_tokens(SequenceId id) const;  // committed
  // May the sequence write the row at `position`: reserved, its own page, not published.
  bool writable(SequenceId id, int64_t position) const;

  bool reuses_prefixes() const { return reuse_; }
  int64_t page_tokens() const { return page_tokens_; }
  int64_t num_pages() const { return static_cast<int64_t>(pages_.size()); }
  int64_t pages_for(int64_t num_tokens) const { return (num_tokens + page_tokens_ - 1) / page_tokens_; }
  int64_t num_available() const;  // free or cached
  int64_t num_used() const { return num_pages() - num_available(); }
  PageTableStats stats() const;

  // Recounts everything and throws internal where the books disagree. O(pages + rows).
  void check() const;

 private:
  struct Page {
    int32_t references = 0;
    bool published = false;
    int32_t parent = -1;  // of a published page; -1: the first of its sequences
    uint64_t hash = 0;
    std::vector<int32_t> tokens;         // of a published page
    std::list<int32_t>::iterator place;  // in least_recent_, while cached
  };
  struct Sequence {
    std::vector<int32_t> pages;
    int64_t num_tokens = 0;
    std::vector<int32_t> tail;  // tokens committed to the last page, while publishing
    bool publishing = true;
  };

  Page& page(int32_t id) { return pages_[static_cast<size_t>(id)]; }
  const Page& page(int32_t id) const { return pages_[static_cast<size_t>(id)]; }
  const Sequence& sequence(SequenceId id) const;
  Sequence& sequence(SequenceId id) { return const_cast<Sequence&>(std::as_const(*this).sequence(id)); }

  // No other sequence reads it, nor will one: it may be written.
  bool is_own(int32_t id) const { return page(id).references == 1 && !page(id).published; }
  uint64_t chain_hash(int32_t parent, std::span<const int32_t> tokens) const;
  int32_t find(int32_t parent, std::span<const int32_t> tokens) const;  // -1: not cached
  int32_t take();                                                       // one of the available pages
  void refer(int32_t id);
  void release(int32_t id);
  void publish(Sequence& s, size_t index);
  void unpublish(int32_t id);
  void forget_behind(int32_t id);

  int64_t page_tokens_;
  bool reuse_;
  uint64_t hash_mask_;
  std::vector<Page> pages_;
  std::vector<int32_t> free_;        // the last one is given first: memory touched before is touched again
  std::list<int32_t> least_recent_;  // cached pages, first to evict first
  std::unordered_multimap<uint64_t, int32_t> index_;  // published pages by hash
  std::unordered_map<SequenceId, Sequence> sequences_;
  PageTableStats counts_;
};

}  // namespace hadal
