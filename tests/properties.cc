/* properties.cc -- what tools/plugins/rdkit_properties.cc says of SMILES on standard input, with all
 * digits: a line each, the six properties.  Last line: RDKit's version, and the seconds of processor time
 * that the properties named by the arguments took, without the start. */
#include <cstdio>
#include <ctime>
#include <iostream>
#include <string>
#include <vector>

#include <RDGeneral/versions.h>

#include "rdkit_properties.cc"

int main(int argc, char **argv)
{
    std::string options, line;
    std::vector<std::string> lines;
    for (int i = 1; i < argc; i++)
        options += std::string(argv[i]) + " ";
    boost::logging::disable_logs("rdApp.*");
    handle h;
    h.columns = read_options(options);
    while (std::getline(std::cin, line))
        lines.push_back(line);
    std::vector<double[PROPERTIES]> found(lines.size());
    std::clock_t start = std::clock();
    for (std::size_t i = 0; i < lines.size(); i++)
        judge(h, lines[i].c_str(), found[i]);
    std::clock_t end = std::clock();
    for (const auto &row : found)
        for (int p = 0; p < PROPERTIES; p++)
            std::printf("%.17g%c", row[p], p + 1 < PROPERTIES ? ' ' : '\n');
    std::printf("%s %.3f\n", RDKit::rdkitVersion,
                static_cast<double>(end - start) / CLOCKS_PER_SEC);
    return 0;
}
