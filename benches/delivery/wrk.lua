-- Sends the requests of a file in turn. Each one is there as its length, a line feed, and its bytes.

local requests, last = {}, 0

function init(args)
    local file = assert(io.open(args[1], "rb"))
    local length = file:read("*n")
    while length do
        file:read(1)
        requests[#requests + 1] = file:read(length)
        length = file:read("*n")
    end
    file:close()
end

function request()
    last = last % #requests + 1
    return requests[last]
end
