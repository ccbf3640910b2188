# cmake --install. Component `programs`: hadal, and hadal-compute where it is built. Component `library`: the
# public headers, the static libraries of the torch-free modules behind them; component `c`: hadal_c.h and
# libhadal_c. Both bring the package with which find_package(hadal [COMPONENTS cpp c]) gives hadal::hadal and
# hadal::hadal_c. What is installed finds shared libraries in lib/ beside it before the system's.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set_target_properties(hadal PROPERTIES INSTALL_RPATH "$ORIGIN/../${CMAKE_INSTALL_LIBDIR}")
set_target_properties(hadal-box PROPERTIES INSTALL_RPATH "$ORIGIN/../../${CMAKE_INSTALL_LIBDIR}")
set_target_properties(hadal_c PROPERTIES INSTALL_RPATH "$ORIGIN")
install(TARGETS hadal RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT programs)
install(TARGETS hadal-box RUNTIME DESTINATION libexec/hadal COMPONENT programs)
if(TARGET hadal-compute)
  # Where hadal looks for it, whatever CMAKE_INSTALL_LIBEXECDIR says.
  install(TARGETS hadal-compute RUNTIME DESTINATION libexec/hadal COMPONENT programs)
  set_target_properties(hadal-compute PROPERTIES
    INSTALL_RPATH "$ORIGIN/../../${CMAKE_INSTALL_LIBDIR};${HADAL_LIBTORCH}/torch/lib")
endif()

# One name for the user; what stands behind it, in which order and with which libraries, are the targets' own facts.
add_library(hadal_public INTERFACE)
add_library(hadal::hadal ALIAS hadal_public)
set_target_properties(hadal_public PROPERTIES EXPORT_NAME hadal)
target_compile_features(hadal_public INTERFACE cxx_std_20)
target_link_libraries(hadal_public INTERFACE hadal_engine hadal_checkpoint hadal_tokenizer hadal_planner hadal_config
                                             hadal_base)

set(installed_modules base config kernels network parallel planner tokenizer checkpoint engine)
foreach(module ${installed_modules})
  set_target_properties(hadal_${module} PROPERTIES EXPORT_NAME ${module})
  install(TARGETS hadal_${module} EXPORT hadal_targets
          ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT library
          INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
endforeach()
install(TARGETS hadal_public EXPORT hadal_targets INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})

# Headers in folders stay behind: they may change without notice.
file(GLOB public_headers CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/hadal/*.h)
list(REMOVE_ITEM public_headers ${CMAKE_SOURCE_DIR}/hadal/hadal_c.h)
install(FILES ${public_headers} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/hadal COMPONENT library)

set_target_properties(hadal_c PROPERTIES PUBLIC_HEADER ${CMAKE_SOURCE_DIR}/hadal/hadal_c.h)
install(TARGETS hadal_c EXPORT hadal_c_targets
        LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT c
        PUBLIC_HEADER DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/hadal COMPONENT c
        INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})

set(package_folder ${CMAKE_INSTALL_LIBDIR}/cmake/hadal)
install(EXPORT hadal_targets FILE hadal-cpp.cmake NAMESPACE hadal:: DESTINATION ${package_folder} COMPONENT library)
install(EXPORT hadal_c_targets FILE hadal-c.cmake NAMESPACE hadal:: DESTINATION ${package_folder} COMPONENT c)
configure_package_config_file(${CMAKE_SOURCE_DIR}/cmake/hadal-config.cmake.in ${CMAKE_BINARY_DIR}/hadal-config.cmake
                              INSTALL_DESTINATION ${package_folder})
write_basic_package_version_file(${CMAKE_BINARY_DIR}/hadal-config-version.cmake COMPATIBILITY SameMinorVersion)
foreach(component library c)
  install(FILES ${CMAKE_BINARY_DIR}/hadal-config.cmake ${CMAKE_BINARY_DIR}/hadal-config-version.cmake
          DESTINATION ${package_folder} COMPONENT ${component})
endforeach()
