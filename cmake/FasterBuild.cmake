# Optional tools that only save time: used where they are, never asked for. The build's results do not
# depend on them.
find_program(HADAL_LLD NAMES ld.lld)
if(HADAL_LLD)
  add_link_options(-fuse-ld=lld)
endif()

find_program(HADAL_CCACHE NAMES ccache)
if(HADAL_CCACHE AND NOT DEFINED CMAKE_CXX_COMPILER_LAUNCHER)
  # ccache takes a source with a precompiled header only with these liberties, and g++ must keep the
  # #pragma that names the header (-fpch-preprocess).
  set(CMAKE_CXX_COMPILER_LAUNCHER
      ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime
      ${HADAL_CCACHE})
  add_compile_options(-fpch-preprocess)
endif()
