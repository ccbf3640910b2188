#include "hadal/engine/page_table.h"

#include <algorithm>

#include "hadal/base/check.h"
#include "hadal/base/text.h"
#include "hadal/error.h"

namespace hadal {
namespace {

constexpr int32_t kNone = -1;

uint64_t mix(uint64_t x) {  // finaliser of SplitMix64 (Steele, Lea, Flood, 2014)
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
  return x ^ (x >> 31);
}

}  // namespace

PageTable::PageTable(const PageTableOptions& options)
    : page_tokens_(options.page_tokens), reuse_(options.reuse_prefixes), hash_mask_(options.hash_mask) {
  if (options.num_pages < 1 || options.page_tokens < 1)
    throw Error(ErrorCode::kInvalidArgument,
                cat("[page_table.new] ", options.num_pages, " pages of ", options.page_tokens,
                    " tokens: need at least one of each. Give the cache more memory."));
  pages_.resize(static_cast<size_t>(options.num_pages));
  for (int64_t i = options.num_pages; i-- > 0;) free_.push_back(static_cast<int32_t>(i));
}

const PageTable::Sequence& PageTable::sequence(SequenceId id) const {
  const auto found = sequences_.find(id);
  HADAL_CHECK(found != sequences_.end()) << "sequence " << id << " is not open";
  return found->second;
}

uint64_t PageTable::chain_hash(int32_t parent, std::span<const int32_t> tokens) const {
  uint64_t hash = parent == kNone ? 0x9E3779B97F4A7C15 : page(parent).hash;
  for (const int32_t token : tokens) hash = mix(hash + 0x9E3779B97F4A7C15 + static_cast<uint32_t>(token));
  return hash & hash_mask_;
}

int32_t PageTable::find(int32_t parent, std::span<const int32_t> tokens) const {
  const auto [first, last] = index_.equal_range(chain_hash(parent, tokens));
  for (auto entry = first; entry != last; ++entry) {
    const Page& p = page(entry->second);
    if (p.parent == parent && std::equal(tokens.begin(), tokens.end(), p.tokens.begin(), p.tokens.end()))
      return entry->second;
  }
  return kNone;
}

PrefixMatch PageTable::match(std::span<const int32_t> tokens) const {
  PrefixMatch match;
  int32_t parent = kNone;
  while (static_cast<int64_t>(tokens.size()) >= page_tokens_) {
    parent = find(parent, tokens.first(static_cast<size_t>(page_tokens_)));
    if (parent == kNone) break;
    match.tokens += page_tokens_;
    match.used_pages += page(parent).references > 0;
    tokens = tokens.subspan(static_cast<size_t>(page_tokens_));
  }
  return match;
}

int64_t PageTable::open(SequenceId id, std::span<const int32_t> tokens) {
  const auto [entry, is_new] = sequences_.try_emplace(id);
  HADAL_CHECK(is_new) << "sequence " << id << " is open already";
  Sequence& s = entry->second;
  s.publishing = reuse_;
  ++counts_.opened;
  counts_.asked_tokens += static_cast<int64_t>(tokens.size());
  for (int32_t parent = kNone; static_cast<int64_t>(tokens.size()) - s.num_tokens >= page_tokens_;) {
    parent =
        find(parent, tokens.subspan(static_cast<size_t>(s.num_tokens), static_cast<size_t>(page_tokens_)));
    if (parent == kNone) break;
    refer(parent);
    s.pages.push_back(parent);
    s.num_tokens += page_tokens_;
  }
  counts_.hits += s.num_tokens > 0;
  counts_.reused_tokens += s.num_tokens;
  return s.num_tokens;
}

bool PageTable::reserve(SequenceId id, int64_t num_tokens) {
  Sequence& s = sequence(id);
  const int64_t missing = pages_for(num_tokens) - static_cast<int64_t>(s.pages.size());
  if (missing > num_available()) return false;
  for (int64_t i = 0; i < missing; ++i) s.pages.push_back(take());
  return true;
}

void PageTable::commit(SequenceId id, std::span<const int32_t> tokens) {
  Sequence& s = sequence(id);
  const int64_t room = static_cast<int64_t>(s.pages.size()) * page_tokens_ - s.num_tokens;
  HADAL_CHECK(static_cast<int64_t>(tokens.size()) <= room)
      << tokens.size() << " tokens committed to sequence " << id << ", pages reserved for " << room;
  for (const int32_t token : tokens) {
    ++s.num_tokens;
    if (!s.publishing) continue;
    s.tail.push_back(token);
    if (static_cast<int64_t>(s.tail.size()) == page_tokens_)
      publish(s, static_cast<size_t>(s.num_tokens / page_tokens_ - 1));
  }
}

void PageTable::publish(Sequence& s, size_t index) {
  const int32_t parent = index == 0 ? kNone : s.pages[index - 1];
  const int32_t own = s.pages[index];
  if (const int32_t same = find(parent, s.tail); same != kNone) {
    refer(same);
    s.pages[index] = same;
    release(own);
    ++counts_.joined;
  } else {
    Page& p = page(own);
    p.published = true;
    p.parent = parent;
    p.hash = chain_hash(parent, s.tail);
    p.tokens = s.tail;
    index_.emplace(p.hash, own);
    ++counts_.published;
  }
  s.tail.clear();
}

int64_t PageTable::truncate(SequenceId id, int64_t num_tokens) {
  Sequence& s = sequence(id);
  HADAL_CHECK(num_tokens >= 0) << num_tokens;
  num_tokens = std::min(num_tokens, s.num_tokens);
  int64_t kept_pages = pages_for(num_tokens);
  if (num_tokens % page_tokens_ != 0 && !is_own(s.pages[static_cast<size_t>(kept_pages - 1)])) {
    --kept_pages;
    num_tokens = kept_pages * page_tokens_;
  }
  while (static_cast<int64_t>(s.pages.size()) > kept_pages) {
    release(s.pages.back());
    s.pages.pop_back();
  }
  s.num_tokens = num_tokens;
  if (s.publishing) s.tail.resize(static_cast<size_t>(num_tokens % page_tokens_));
  return num_tokens;
}

std::optional<std::vector<PageMove>> PageTable::shift(SequenceId id, int64_t keep_tokens,
                                                      int64_t drop_tokens) {
  Sequence& s = sequence(id);
  HADAL_CHECK(keep_tokens >= 0 && drop_tokens > 0 && keep_tokens % page_tokens_ == 0 &&
              drop_tokens % page_tokens_ == 0 && keep_tokens + drop_tokens <= s.num_tokens)
      << "shift of " << drop_tokens << " rows after " << keep_tokens << " of " << s.num_tokens;
  const auto gap = s.pages.begin() + keep_tokens / page_tokens_, behind = gap + drop_tokens / page_tokens_;
  const auto count_behind = [&](auto&& is) { return std::count_if(behind, s.pages.end(), is); };
  const bool in_place = count_behind([&](int32_t p) { return !is_own(p); }) > num_available();
  if (count_behind([&](int32_t p) { return page(p).references > 1; }) > num_available()) return std::nullopt;
  if (in_place)
    for (auto p = behind; p != s.pages.end(); ++p)
      if (page(*p).references == 1 && page(*p).published) forget_behind(*p);
  std::vector<int32_t> dropped(gap, behind);
  std::vector<PageMove> moves;
  for (auto p = behind; p != s.pages.end(); ++p) {
    moves.push_back({*p, *p});
    if (is_own(*p)) continue;
    moves.back().to = take();  // never one of the sequence's own: those are released below
    dropped.push_back(*p);
  }
  s.pages.erase(gap, s.pages.end());
  for (const PageMove& move : moves) s.pages.push_back(move.to);
  std::for_each(dropped.rbegin(), dropped.rend(), [&](int32_t p) { release(p); });
  s.num_tokens -= drop_tokens;
  s.publishing = false;
  s.tail.clear();
  moves.resize(static_cast<size_t>(pages_for(s.num_tokens) - keep_tokens / page_tokens_));  // those with rows
  return moves;
}

void PageTable::close(SequenceId id) {
  Sequence& s = sequence(id);
  std::for_each(s.pages.rbegin(), s.pages.rend(), [&](int32_t p) { release(p); });
  sequences_.erase(id);
}

void PageTable::forget() {
  for (auto& [id, s] : sequences_) {
    s.publishing = false;
    s.tail.clear();
  }
  for (int32_t id = 0; id < static_cast<int32_t>(num_pages()); ++id)
    if (page(id).published) unpublish(id);
  free_.insert(free_.end(), least_recent_.begin(), least_recent_.end());
  least_recent_.clear();
}

// No prefix through this page is found again. Whoever refers to a page behind it refers to it too, so those
// are cached or of the sequence that the page belongs to.
void PageTable::forget_behind(int32_t id) {
  for (int32_t next = 0; next < static_cast<int32_t>(num_pages()); ++next)
    if (page(next).published && page(next).parent == id) forget_behind(next);
  unpublish(id);
  if (page(id).references > 0) return;
  least_recent_.erase(page(id).place);
  free_.push_back(id);
}

int32_t PageTable::take() {
  if (free_.empty()) {
    HADAL_CHECK(!least_recent_.empty()) << "no page is available";
    const int32_t oldest = least_recent_.front();
    least_recent_.pop_front();
    unpublish(oldest);
    free_.push_back(oldest);
    ++counts_.evictions;
  }
  const int32_t id = free_.back();
  free_.pop_back();
  page(id).references = 1;
  return id;
}

void PageTable::refer(int32_t id) {
  Page& p = page(id);
  if (p.references++ == 0) least_recent_.erase(p.place);
}

void PageTable::release(int32_t id) {
  Page& p = page(id);
  HADAL_CHECK(p.references > 0) << "page " << id << " released once too often";
  if (--p.references > 0) return;
  if (p.published) {
    p.place = least_recent_.insert(least_recent_.end(), id);
  } else {
    free_.push_back(id);
  }
}

void PageTable::unpublish(int32_t id) {
  Page& p = page(id);
  const auto [first, last] = index_.equal_range(p.hash);
  const auto entry = std::find_if(first, last, [&](const auto& e) { return e.second == id; });
  HADAL_CHECK(entry != last) << "page " << id << " is not in the index";
  index_.erase(entry);
  p.published = false;
  p.parent = kNone;
  p.tokens.clear();
}

std::vector<PageTable::Published> PageTable::published() const {
  std::vector<Published> out;
  const auto add = [&](int32_t id) { out.push_back({id, page(id).parent, page(id).tokens}); };
  // Those in use by their depth, breadth first; then the others, of which a parent is always the more recent.
  std::vector<int32_t> level = {kNone};
  while (!level.empty()) {
    std::vector<int32_t> next;
    for (int32_t id = 0; id < static_cast<int32_t>(num_pages()); ++id)
      if (page(id).published && page(id).references > 0 &&
          std::find(level.begin(), level.end(), page(id).parent) != level.end())
        next.push_back(id);
    std::for_each(next.begin(), next.end(), add);
    level = std::move(next);
  }
  std::for_each(least_recent_.rbegin(), least_recent_.rend(), add);
  return out;
}

std::optional<PageTable::Restored> PageTable::restore(int32_t parent, std::span<const int32_t> tokens) {
  HADAL_CHECK(std::ssize(tokens) == page_tokens_ && (parent == kNone || page(parent).published));
  if (const int32_t same = find(parent, tokens); same != kNone) return Restored{same, false};
  if (free_.empty()) return std::nullopt;
  const int32_t id = free_.back();
  free_.pop_back();
  Page& p = page(id);
  p.published = true, p.parent = parent, p.hash = chain_hash(parent, tokens);
  p.tokens.assign(tokens.begin(), tokens.end());
  index_.emplace(p.hash, id);
  p.place = least_recent_.insert(least_recent_.begin(), id);
  return Restored{id, true};
}

std::span<const int32_t> PageTable::pages(SequenceId id) const {
  return sequence(id).pages;
}

int64_t PageTable::num_tokens(SequenceId id) const {
  return sequence(id).num_tokens;
}

bool PageTable::writable(SequenceId id, int64_t position) const {
  const Sequence& s = sequence(id);
  const int64_t index = position / page_tokens_;
  if (position < s.num_tokens || index >= static_cast<int64_t>(s.pages.size())) return false;
  return is_own(s.pages[static_cast<size_t>(index)]);
}

int64_t PageTable::num_available() const {
  return static_cast<int64_t>(free_.size()) + static_cast<int64_t>(least_recent_.size());
}

PageTableStats PageTable::stats() const {
  PageTableStats stats = counts_;
  stats.pages = num_pages();
  stats.used = num_used();
  stats.cached = static_cast<int64_t>(least_recent_.size());
  stats.free = static_cast<int64_t>(free_.size());
  return stats;
}

void PageTable::check() const {
  std::vector<int32_t> references(pages_.size(), 0);
  for (const auto& [id, s] : sequences_) {
    HADAL_CHECK(pages_for(s.num_tokens) <= static_cast<int64_t>(s.pages.size())) << "sequence " << id;
    HADAL_CHECK(!s.publishing || static_cast<int64_t>(s.tail.size()) == s.num_tokens % page_tokens_) << id;
    for (size_t i = 0; i < s.pages.size(); ++i) {
      const Page& p = page(s.pages[i]);
      ++references[static_cast<size_t>(s.pages[i])];
      const bool full = (static_cast<int64_t>(i) + 1) * page_tokens_ <= s.num_tokens;
      HADAL_CHECK(full || is_own(s.pages[i])) << "sequence " << id << " has rows to write in a shared page";
      if (s.publishing && full) {
        HADAL_CHECK(p.published && p.parent == (i == 0 ? kNone : s.pages[i - 1])) << "sequence " << id;
      }
    }
  }
  std::vector<int32_t> listed(pages_.size(), 0);
  for (const int32_t id : free_) {
    ++listed[static_cast<size_t>(id)];
    HADAL_CHECK(!page(id).published) << "free page " << id << " is published";
  }
  for (const int32_t id : least_recent_) {
    ++listed[static_cast<size_t>(id)];
    HADAL_CHECK(page(id).published) << "cached page " << id << " is not published";
  }
  int64_t published = 0;
  for (size_t i = 0; i < pages_.size(); ++i) {
    const Page& p = pages_[i];
    HADAL_CHECK(p.references == references[i])
        << "page " << i << ": " << p.references << " references, counted " << references[i];
    HADAL_CHECK(listed[i] == (references[i] == 0 ? 1 : 0))
        << "page " << i << " listed " << listed[i] << " times";
    if (!p.published) continue;
    ++published;
    HADAL_CHECK(p.parent == kNone || page(p.parent).published) << "page " << i << " lost its parent";
    HADAL_CHECK(p.hash == chain_hash(p.parent, p.tokens)) << "page " << i << " has another hash";
  }
  HADAL_CHECK(published == static_cast<int64_t>(index_.size()))
      << published << " published, index " << index_.size();
}

}  // namespace hadal
