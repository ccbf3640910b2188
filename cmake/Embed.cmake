# hadal_embed(<target> <file> <name>): the bytes of a file as `extern const char NAME[]` and `size_t NAMESize` in
# namespace hadal; made again when the file changes. As a script (-DIN -DOUT -DNAME) it writes that source.
if(CMAKE_SCRIPT_MODE_FILE)
  file(READ ${IN} hex HEX)
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "'\\\\x\\1'," bytes "${hex}")
  file(WRITE ${OUT} "#include <cstddef>\nnamespace hadal {\nextern const char ${NAME}[];\nextern const size_t ${NAME}Size;\n"
                    "const char ${NAME}[] = {${bytes}'\\0'};\nconst size_t ${NAME}Size = sizeof(${NAME}) - 1;\n}\n")
  return()
endif()

set(HADAL_EMBED_SCRIPT ${CMAKE_CURRENT_LIST_FILE})
function(hadal_embed target file name)
  set(out ${CMAKE_CURRENT_BINARY_DIR}/${name}.cc)
  add_custom_command(OUTPUT ${out}
    COMMAND ${CMAKE_COMMAND} -DIN=${CMAKE_CURRENT_SOURCE_DIR}/${file} -DOUT=${out} -DNAME=${name} -P ${HADAL_EMBED_SCRIPT}
    DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${file} ${HADAL_EMBED_SCRIPT} VERBATIM)
  target_sources(${target} PRIVATE ${out})
endfunction()
