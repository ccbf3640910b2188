#include "hadal/parallel/pipeline.h"

#include <deque>
#include <map>
#include <tuple>

#include "hadal/base/check.h"
#include "hadal/base/text.h"
#include "hadal/error.h"

namespace hadal {
namespace {

struct Message {
  int link = 0;
  bool back = false;
  int microbatch = 0;
  auto key() const { return std::tuple(link, back, microbatch); }
};

constexpr int64_t kHead = 3;  // floats in front: which message it is
constexpr auto kFloat = static_cast<int64_t>(sizeof(float));

class Run {
 public:
  Run(Comm& comm, Schedule schedule, const std::vector<StageLink>& links, StageWork& work)
      : comm_(comm),
        schedule_(std::move(schedule)),
        links_(links),
        work_(work),
        coming_(static_cast<size_t>(comm.size())) {
    for (int64_t r = 0; r < comm.size(); ++r)
      if (r != comm.rank())
        for (const Action& action : schedule_.actions[static_cast<size_t>(r)]) expect_from(r, action);
  }

  void all() {
    for (const Action& action : schedule_.actions[static_cast<size_t>(comm_.rank())]) {
      one(action);
      while (!sent_.empty() && sent_.front().sending->done()) sent_.pop_front();
    }
    for (Sent& sent : sent_) sent.sending->wait();
  }

 private:
  struct Sent {
    Packet packet;
    std::unique_ptr<Sending> sending;
  };

  void one(const Action& a) {
    switch (a.pass) {
      case Pass::kForward:
        return forward(a.stage, a.microbatch);
      case Pass::kBackward:
        return backward(a.stage, a.microbatch, false);
      case Pass::kInputGrad:
        return backward(a.stage, a.microbatch, true);
      case Pass::kWeightGrad:
        return work_.weight_gradients(a.stage, a.microbatch);
      case Pass::kPair:
        HADAL_CHECK(false) << "pairs run in turn";
    }
  }

  void forward(int stage, int microbatch) {
    std::vector<Packet> in;
    for_each_link(&StageLink::to, stage, [&](int l) { in.push_back(take({l, false, microbatch})); });
    std::vector<Packet> out = work_.forward(stage, microbatch, std::move(in));
    size_t next = 0;
    for_each_link(&StageLink::from, stage, [&](int l) {
      give({l, false, microbatch}, std::move(out.at(next++)));
    });
    HADAL_CHECK(next == out.size());
  }

  void backward(int stage, int microbatch, bool input_only) {
    std::vector<Packet> gradients;
    for_each_link(&StageLink::from, stage, [&](int l) { gradients.push_back(take({l, true, microbatch})); });
    std::vector<Packet> out = work_.backward(stage, microbatch, std::move(gradients), input_only);
    size_t next = 0;
    for_each_link(&StageLink::to, stage, [&](int l) {
      give({l, true, microbatch}, std::move(out.at(next++)));
    });
    HADAL_CHECK(next == out.size());
  }

  void for_each_link(int StageLink::*end, int stage, auto&& f) const {
    for (size_t l = 0; l < links_.size(); ++l)
      if (links_[l].*end == stage) f(static_cast<int>(l));
  }

  const StageLink& link(const Message& m) const { return links_[static_cast<size_t>(m.link)]; }
  int64_t receiver(const Message& m) const {
    return schedule_.rank_of(m.back ? link(m).from : link(m).to, m.microbatch);
  }
  int64_t sender(const Message& m) const {
    return schedule_.rank_of(m.back ? link(m).to : link(m).from, m.microbatch);
  }
  int64_t size(const Message& m) const {
    return m.back ? work_.backward_size(link(m), m.microbatch) : work_.forward_size(link(m), m.microbatch);
  }

  // What rank r sends me in an action, in the order of forward() and backward().
  void expect_from(int64_t r, const Action& a) {
    const auto add = [&](int StageLink::*end, int stage, int microbatch, bool back) {
      for_each_link(end, stage, [&](int l) {
        const Message m{l, back, microbatch};
        if (receiver(m) == comm_.rank()) coming_[static_cast<size_t>(r)].push_back(m);
      });
    };
    if (a.pass == Pass::kForward) add(&StageLink::from, a.stage, a.microbatch, false);
    if (a.pass == Pass::kBackward || a.pass == Pass::kInputGrad)
      add(&StageLink::to, a.stage, a.microbatch, true);
  }

  void give(const Message& m, Packet packet) {
    HADAL_CHECK(static_cast<int64_t>(packet.size()) == size(m)) << "a stage's packet has another size";
    const int64_t to = receiver(m);
    if (to == comm_.rank()) {
      here_[m.key()] = std::move(packet);
      return;
    }
    const float head[kHead] = {static_cast<float>(m.link), m.back ? 1.0f : 0.0f,
                               static_cast<float>(m.microbatch)};
    packet.insert(packet.begin(), head, head + kHead);
    sent_.push_back({std::move(packet), nullptr});
    const Packet& kept = sent_.back().packet;
    const Outgoing out[] = {{to, kept.data(), static_cast<int64_t>(kept.size()) * kFloat}};
    sent_.back().sending = comm_.begin_send(out);
  }

  Packet take(const Message& m) {
    while (!here_.contains(m.key())) receive_next(sender(m));
    Packet packet = std::move(here_.extract(m.key()).mapped());
    return packet;
  }

  void receive_next(int64_t from) {
    auto& coming = coming_[static_cast<size_t>(from)];
    HADAL_CHECK(!coming.empty()) << "rank " << from << " sends nothing more";
    const Message m = coming.front();
    coming.pop_front();
    Packet packet(static_cast<size_t>(size(m) + kHead));
    receive(comm_, from, packet.data(), static_cast<int64_t>(packet.size()) * kFloat);
    if (packet[0] != static_cast<float>(m.link) || (packet[1] != 0) != m.back ||
        packet[2] != static_cast<float>(m.microbatch))
      throw Error(ErrorCode::kInternal,
                  cat("[parallel.pipeline] rank ", from, " sent link ", packet[0], ", back ", packet[1],
                      ", micro-batch ", packet[2], ", rank ", comm_.rank(), " expects ", m.link, ", ", m.back,
                      ", ", m.microbatch, "."));
    packet.erase(packet.begin(), packet.begin() + kHead);
    here_[m.key()] = std::move(packet);
  }

  Comm& comm_;
  const Schedule schedule_;
  const std::vector<StageLink>& links_;
  StageWork& work_;
  std::vector<std::deque<Message>> coming_;  // from each rank
  std::map<std::tuple<int, bool, int>, Packet> here_;
  std::deque<Sent> sent_;
};

}  // namespace

void run_pipeline(Comm& comm, const Schedule& schedule, const std::vector<StageLink>& links,
                  StageWork& work) {
  HADAL_CHECK(comm.size() == schedule.shape.ranks) << comm.size() << " " << schedule.shape.ranks;
  Run(comm, pairs_in_turn(schedule), links, work).all();
}

Schedule pairs_in_turn(const Schedule& schedule) {
  Schedule out = schedule;
  for (std::vector<Action>& actions : out.actions) {
    std::vector<Action> turns;
    for (const Action& a : actions) {
      const bool pair = a.pass == Pass::kPair;
      if (pair) turns.push_back({Pass::kBackward, a.backward_stage, a.backward_microbatch});
      turns.push_back({pair ? Pass::kForward : a.pass, a.stage, a.microbatch});
    }
    actions = std::move(turns);
  }
  return out;
}

Schedule forward_only(const Schedule& schedule, int microbatches) {
  Schedule out = schedule;
  // Twice as many: DualPipe's second half enters at the other end.
  out.shape.microbatches = 2 * microbatches;
  for (size_t r = 0; r < out.actions.size(); ++r) {
    out.actions[r].clear();
    for (int m = 0; m < microbatches; ++m)
      for (int stage = 0; stage < out.stages; ++stage)
        if (out.rank_of(stage, m) == static_cast<int>(r))
          out.actions[r].push_back({Pass::kForward, stage, m});
  }
  return out;
}

}  // namespace hadal
