// Makers of single tasks, for the table of kinds.
#pragma once
#include "hadal/rewards/task_maker.h"

namespace hadal {

MadeTask word_problem(TaskRandom& random, int64_t level);
MadeTask cpp_expression(TaskRandom& random, int64_t level);
MadeTask cpp_function(TaskRandom& random, int64_t level);
MadeTask needle(TaskRandom& random, int64_t level);

}  // namespace hadal
