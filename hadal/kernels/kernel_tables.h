// The tables of one family of kernels, one for each instruction set that it is compiled for.
#pragma once
#include <initializer_list>
#include <vector>

#include "hadal/kernels/isa.h"

namespace hadal {

template <class Table>
class KernelTables {
 public:
  // Best first, the scalar one last, which runs everywhere. Those that do not run here are left out.
  KernelTables(std::initializer_list<const Table*> all) {
    for (const Table* table : all)
      if (isa_runs(table->isa)) tables_.push_back(table);
  }
  int size() const { return static_cast<int>(tables_.size()); }
  const Table& at(int index) const { return *tables_.at(static_cast<size_t>(index)); }

  // That of the instruction set in use, or the next one. Throws as chosen_isa_rank().
  const Table& chosen() const {
    const int rank = chosen_isa_rank();
    for (const Table* table : tables_)
      if (isa_rank(table->isa) >= rank) return *table;
    return *tables_.back();
  }

 private:
  std::vector<const Table*> tables_;
};

}  // namespace hadal
